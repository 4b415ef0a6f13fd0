"""Untrusted file to 8-bit sRGB pixels of known scale, and pixels to a network's input."""
