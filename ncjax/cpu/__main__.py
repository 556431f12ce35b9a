"""`python -m ncjax.cpu build`: oneDNN's convolutions, ahead of their first use."""

from __future__ import annotations

import argparse
import sys

from ncjax.command import tell
from ncjax.cpu import build, header


def main(argv: list[str] | None = None) -> int:
    """The exit code, as of `command.tell`."""
    parser = argparse.ArgumentParser(prog="python -m ncjax.cpu",
                                     description="Build oneDNN's convolutions, or say what convolves here.")
    parser.add_argument("action", choices=("build", "which"))
    args = parser.parse_args(argv)
    return tell("ncjax.cpu", lambda: build(fresh=True) if args.action == "build" else header())


if __name__ == "__main__":
    sys.exit(main())
