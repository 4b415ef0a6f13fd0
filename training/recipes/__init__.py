"""Recipes: one YAML file each, and their schema."""
