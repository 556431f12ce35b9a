"""`python -m ncjax.cpu build`: oneDNN's convolutions, ahead of their first use."""

from __future__ import annotations

import argparse
import sys

from ncjax.cpu import build, header
from ncjax.types import UserError


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line that says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m ncjax.cpu",
                                     description="Build oneDNN's convolutions, or say what convolves here.")
    parser.add_argument("action", choices=("build", "which"))
    args = parser.parse_args(argv)
    try:
        print(build(fresh=True) if args.action == "build" else header())
    except (UserError, OSError) as e:
        print(f"ncjax: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
