"""The command `ncjax predict RUN PHOTOS... [--out predictions.csv]`; also `python -m ncjax.predict`."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import ncjax
from ncjax.core.cli import Parser, quiet, tell
from ncjax.core.errors import UserError
from ncjax.core.files import write_text


def main(argv: list[str] | None = None) -> int:
    """The exit code, as of `core.cli.tell`."""
    parser = Parser("ncjax predict", "Say what is on photos, with a trained network; writes a CSV file.")
    parser.add_argument("init", help="a run, a delta, an exported file, or weights trained elsewhere")
    parser.add_argument("images", nargs="+", help="files, or folders of them")
    parser.add_argument("--out", default="predictions.csv", help="the file to write; - for standard output")
    parser.add_argument("--which", choices=("best", "last"), help="which checkpoint of a run; default: the report's")
    parser.add_argument("--base", help="where the base of a fine-tuned network is, if not where it was")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time")
    parser.add_argument("--force", action="store_true", help="replace the file if there is one")

    def predict(args: Namespace) -> str:
        out = Path(args.out)
        if args.out != "-" and (out.exists() or not out.absolute().parent.is_dir()) and not (args.force and out.is_file()):
            there = "is there already; choose another, or add --force" if out.exists() else "is in no folder that exists"
            raise UserError(f"{out} {there}")
        found = ncjax.load(args.init, which=args.which, base=args.base).predict(
            args.images, batch_size=args.batch_size, skip_bad=True
        )
        run = Path(args.init)
        if (run / "config.json").is_file() and not (run / "results.json").is_file():
            print(f"ncjax predict: {run} is not finished; this is its checkpoint so far", file=sys.stderr)
        for reason in found.unread:
            print(f"ncjax predict: left out: {reason}", file=sys.stderr)
        if args.out == "-":
            return found.to_csv().rstrip("\n")
        write_text(out, found.to_csv())
        counts = {name: found.labels.count(name) for name in found.classes}
        most = sorted((n, name) for name, n in counts.items() if n)[::-1]
        return f"{out}: {len(found.labels)} images; " + ", ".join(f"{name} {n}" for n, name in most[:10])

    return tell("ncjax predict", parser, argv, predict)


if __name__ == "__main__":
    quiet()
    sys.exit(main())
