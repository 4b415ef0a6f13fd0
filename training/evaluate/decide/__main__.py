"""``python -m training.evaluate.decide``: fits operating points and referral bands."""

from training import command
from training.evaluate.decide.fit import main

if __name__ == "__main__":
    command.run(main)
