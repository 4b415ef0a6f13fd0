"""``python -m training.train``: trains one model from a recipe."""

from training import command
from training.train.run import main

if __name__ == "__main__":
    command.run(main)
