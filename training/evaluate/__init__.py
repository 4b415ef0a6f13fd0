"""Measuring: figures with intervals, floors, costs, and the schema of ``metrics.json``."""
