"""`python -m ncjax.report runs/a runs/b [--out DIR] [--archive] [--force]`: one page that compares runs."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from ncjax.core.cli import Parser, quiet, tell
from ncjax.report import page


def main(argv: list[str] | None = None) -> int:
    """The exit code, as of `core.cli.tell`: 2 for folders that hold no finished run."""
    parser = Parser("python -m ncjax.report", "Compare finished runs in one page.")
    parser.add_argument("runs", nargs="+", help="folders of finished runs or chains")
    parser.add_argument("--out", default="runs/report", help="folder to write report.html and tables/ into")
    parser.add_argument("--archive", action="store_true", help="also write results.json and figures/*.png there")
    parser.add_argument("--force", action="store_true", help="write into a folder that holds other files, and over them")

    def compare(args: Namespace) -> object:
        title = " and ".join(Path(r).name for r in args.runs)
        page.free(Path(args.out), args.force)
        return page.write(args.runs, args.out, title=title, archive=args.archive, force=args.force)

    return tell("ncjax.report", parser, argv, compare)


if __name__ == "__main__":
    quiet()
    sys.exit(main())
