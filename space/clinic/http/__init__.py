"""The gate before everything, and what a request may reach."""
