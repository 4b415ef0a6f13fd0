"""``python -m training.corpus``: builds the merged corpus."""

from training import command
from training.corpus.build import make_command

if __name__ == "__main__":
    command.run(make_command())
