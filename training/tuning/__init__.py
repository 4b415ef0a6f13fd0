"""What `training.tune` is made of: the space, the trials, where they are kept, what they show."""
