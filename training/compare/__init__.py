"""Comparing finished runs: runs read back, sections, tables, the page."""
