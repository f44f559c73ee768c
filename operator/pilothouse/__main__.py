"""`python3 -m pilothouse` is the command `pilothouse`."""

import sys

from pilothouse.cli.script import main

if __name__ == "__main__":
    sys.exit(main())
