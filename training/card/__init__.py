"""Model cards, written from ``metrics.json`` and ``config.json``."""
