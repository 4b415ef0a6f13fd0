"""``python -m training.evaluate``: measures a model on a part of a corpus."""

from training import command
from training.evaluate.measure import main

if __name__ == "__main__":
    command.run(main)
