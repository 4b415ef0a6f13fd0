"""For ``python -m bcd_models.cli`` and ``accelerate launch -m bcd_models.cli``."""

from bcd_models.cli.command import main

if __name__ == "__main__":
    main()
