"""Models on offer and what they say of images and slides."""
