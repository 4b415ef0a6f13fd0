"""Drawn stand-ins for the two public corpora, so that tests need no downloads."""
