"""`python -m headsweep`, as the command `headsweep`."""

from headsweep.cli import main

if __name__ == "__main__":
    main()
