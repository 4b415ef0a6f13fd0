"""What ``python -m training.publish`` is made of: what goes to the Hub, and how it gets there."""
