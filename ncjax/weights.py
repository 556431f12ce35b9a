"""The command `python -m ncjax.weights`; see `ncjax.networks.weights`."""

import sys

from ncjax.networks.weights.command import main

if __name__ == "__main__":
    sys.exit(main())
