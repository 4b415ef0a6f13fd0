"""``python -m training.evaluate.faithfulness``: measures a model's heat maps."""

from training import command
from training.evaluate.faithfulness.measure import main

if __name__ == "__main__":
    command.run(main)
