"""`python -m gdtorch`: the same as `python train.py`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.argv[0] = "python -m gdtorch"  # as --help is to show it
    sys.exit(main())
