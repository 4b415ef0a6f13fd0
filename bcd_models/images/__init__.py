"""Untrusted file to RGB pixels, and pixels to a network's input."""
