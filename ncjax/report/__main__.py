"""`python -m ncjax.report runs/a runs/b [--out DIR] [--archive]`: one page that compares runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ncjax.report import write
from ncjax.types import UserError


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line for folders that hold no finished run."""
    parser = argparse.ArgumentParser(prog="python -m ncjax.report", description="Compare finished runs in one page.")
    parser.add_argument("runs", nargs="+", help="folders of finished runs or chains")
    parser.add_argument("--out", default="runs/report", help="folder to write report.html and tables/ into")
    parser.add_argument("--archive", action="store_true", help="also write results.json and figures/*.png there")
    args = parser.parse_args(argv)
    try:
        title = " and ".join(Path(r).name for r in args.runs)
        print(write(args.runs, args.out, title=title, archive=args.archive))
        return 0
    except UserError as e:
        print(f"ncjax.report: {e}", file=sys.stderr)
        return 2
    except OSError as e:
        print(f"ncjax.report: cannot write to {args.out} ({e.strerror})", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
