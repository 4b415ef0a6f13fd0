"""``python -m training.evaluate.suitability``: fits, measures and stores what refers images of no tissue."""

from training import command
from training.evaluate.suitability.measure import main

if __name__ == "__main__":
    command.run(main)
