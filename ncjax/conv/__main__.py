"""`python -m ncjax.conv build`: oneDNN's convolutions, ahead of their first use."""

from __future__ import annotations

import sys

from ncjax.conv import build, header
from ncjax.core.cli import Parser, quiet, tell


def main(argv: list[str] | None = None) -> int:
    """The exit code, as of `core.cli.tell`."""
    parser = Parser("python -m ncjax.conv", "Build oneDNN's convolutions, or say what convolves here.")
    parser.add_argument("action", choices=("build", "which"))
    return tell("ncjax.conv", parser, argv, lambda args: build(fresh=True) if args.action == "build" else header())


if __name__ == "__main__":
    quiet()
    sys.exit(main())
