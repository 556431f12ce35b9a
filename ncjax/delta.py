"""The command `python -m ncjax.delta`; see `ncjax.networks.delta`."""

import sys

from ncjax.core.cli import quiet
from ncjax.networks.delta import main

if __name__ == "__main__":
    quiet()
    sys.exit(main())
