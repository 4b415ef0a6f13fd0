"""Tuning a recipe with Optuna: the space, the trials, their storage, the page."""
