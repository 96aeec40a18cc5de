"""`python -m atelier`: the command where its script is not on the path."""

import sys

from atelier.apps.cli import main

if __name__ == "__main__":
    sys.exit(main())
