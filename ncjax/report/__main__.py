"""`python -m ncjax.report runs/a runs/b [--out DIR] [--archive]`: one page that compares runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ncjax.core.cli import tell
from ncjax.core.errors import UserError
from ncjax.report import write


def main(argv: list[str] | None = None) -> int:
    """The exit code, as of `core.cli.tell`: 2 for folders that hold no finished run."""
    parser = argparse.ArgumentParser(prog="python -m ncjax.report", description="Compare finished runs in one page.")
    parser.add_argument("runs", nargs="+", help="folders of finished runs or chains")
    parser.add_argument("--out", default="runs/report", help="folder to write report.html and tables/ into")
    parser.add_argument("--archive", action="store_true", help="also write results.json and figures/*.png there")
    args = parser.parse_args(argv)

    def compare() -> object:
        title = " and ".join(Path(r).name for r in args.runs)
        try:
            return write(args.runs, args.out, title=title, archive=args.archive)
        except OSError as e:
            raise UserError(f"cannot write to {args.out} ({e.strerror})") from None

    return tell("ncjax.report", compare)


if __name__ == "__main__":
    sys.exit(main())
