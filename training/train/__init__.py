"""Training one model: the loop, its checkpoints, augmentation, balance, teachers."""
