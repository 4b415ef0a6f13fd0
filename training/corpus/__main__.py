"""``python -m training.corpus``: builds the merged corpus."""

from training import command
from training.corpus.build import main

if __name__ == "__main__":
    command.run(main)
