"""``python -m training.study``: runs a whole study."""

from training import command
from training.study.queue import main

if __name__ == "__main__":
    command.run(main)
