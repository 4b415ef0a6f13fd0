"""``python -m training.evaluate.suitability``: fits, measures and stores the gate."""

from training import command
from training.evaluate.suitability.measure import main

if __name__ == "__main__":
    command.run(main)
