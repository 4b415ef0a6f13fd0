"""The classifier, the ensemble, what they share, and the registry of backbones."""
