"""Runs the command `python3 -m ringest send`."""

import sys

from ringest.send_command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
