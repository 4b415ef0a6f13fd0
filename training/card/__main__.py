"""``python -m training.card``: writes model cards."""

from training import command
from training.card.write import main

if __name__ == "__main__":
    command.run(main)
