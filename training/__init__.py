"""Makes the models from the merged corpus; run from a checkout, ``python -m training.train``."""
