"""``python -m training.tune``: tunes a recipe with Optuna."""

from training import command
from training.tune.search import main

if __name__ == "__main__":
    command.run(main)
