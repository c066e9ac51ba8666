"""Train the post's 3-15-1 network by hand and by torch.optim.SGD, in lockstep."""

import sys

from gdtorch.cli import main

if __name__ == "__main__":
    sys.exit(main())
