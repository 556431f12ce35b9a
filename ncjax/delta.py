"""The command `python -m ncjax.delta`; see `ncjax.networks.delta`."""

import sys

from ncjax.networks.delta import main

if __name__ == "__main__":
    sys.exit(main())
