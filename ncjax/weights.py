"""The command `python -m ncjax.weights`; see `ncjax.networks.weights`."""

import sys

from ncjax.core.cli import quiet
from ncjax.networks.weights.command import main

if __name__ == "__main__":
    quiet()
    sys.exit(main())
