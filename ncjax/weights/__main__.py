"""`python -m ncjax.weights FILE`: what is in a file of weights."""

from __future__ import annotations

import argparse
import sys

from ncjax.types import UserError
from ncjax.weights import hub, read, table


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line that says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m ncjax.weights", description="Show the layout of a file of weights and "
                                     "which of its tensors fit: matched, missing, unexpected, misshaped.")
    parser.add_argument("weights", help="a file, hf:OWNER/NAME or torchvision:NAME")
    parser.add_argument("--model", help="the network, if not what names and shapes say")
    args = parser.parse_args(argv)
    try:
        file = hub.local(args.weights)
        print(table(read(file.path)[0], args.model, file.preprocess))
    except (UserError, OSError) as e:
        print(f"ncjax: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
