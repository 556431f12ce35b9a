"""`python -m ncjax.report runs/a runs/b [--out DIR]`: one page that compares runs."""

from __future__ import annotations

import argparse
import sys

from ncjax.report import write
from ncjax.types import UserError


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line for folders that hold no finished run."""
    parser = argparse.ArgumentParser(prog="python -m ncjax.report", description="Compare finished runs in one page.")
    parser.add_argument("runs", nargs="+", help="folders of finished runs or chains")
    parser.add_argument("--out", default="runs/report", help="folder to write report.html and tables/ into")
    args = parser.parse_args(argv)
    try:
        print(write(args.runs, args.out, title="Comparison of runs" if len(args.runs) > 1 else args.runs[0]))
        return 0
    except UserError as e:
        print(f"ncjax.report: {e}", file=sys.stderr)
        return 2
    except OSError as e:
        print(f"ncjax.report: cannot write to {args.out} ({e.strerror})", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
