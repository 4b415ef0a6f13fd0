"""``python -m training.compare``: compares finished runs."""

from training import command
from training.compare.report import main

if __name__ == "__main__":
    command.run(main)
