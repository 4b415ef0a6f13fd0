"""``python -m training.publish``: publishes to the Hub."""

from training import command
from training.publish.send import main

if __name__ == "__main__":
    command.run(main)
