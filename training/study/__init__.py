"""A whole study: its plan and stages, the choice of recipes, records and release."""
