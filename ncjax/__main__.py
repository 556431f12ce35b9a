"""The command `ncjax`, also `python -m ncjax`: what there is, and how it is run.

ncjax list                          configs; `ncjax list methods`: models, losses, methods, scores, ... that they name
ncjax quickstart                    the whole story, on data that ships with ncjax
ncjax CONFIG[:key=value,...]        any config, a file or one of the list; --key=value sets a key, --help lists them
ncjax predict RUN PHOTOS...         a trained network on photos, into a CSV file
ncjax report RUN...                 one page that compares runs
ncjax delta RUN OUT.safetensors     a fine-tuned network, joined with its base, in one file
ncjax weights FILE                  what is in a file of weights
ncjax claims RECORDS...             the paper's claims, one by one, from records
ncjax nc FEATURES.npz               collapse of saved features
"""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace

import ncjax
from ncjax.core import start
from ncjax.core.cli import Parser, ended, tell
from ncjax.core.errors import UserError, nearest

COMMANDS = {
    "predict": "predict",
    "report": "report.__main__",
    "delta": "networks.delta",
    "weights": "networks.weights.command",
    "claims": "claims",
    "nc": "nc.__main__",
}
KINDS = {  # what a config names, and its role
    "models": "MODEL",
    "losses": "LOSS",
    "augmentations": "AUGMENT",
    "optimisers": "OPTIMIZER",
    "methods": "METHOD",
    "scores": "SCORE",
    "metrics": "METRIC",
}
FLAGS = (
    "help",
    "workdir",
    "distributed",
    "coordinator",
    "process-count",
    "process-id",
    "debug",
    "config",
)  # of a run; any other --key=value is a config's


def _listed(args: Namespace) -> str:
    if args.kind == "configs":
        from ncjax import config

        found = config.shipped()
        return "\n".join(f"{name:<{max(map(len, found))}}  {note}" for name, note in found.items())
    if args.kind not in KINDS:
        raise UserError(f"no kind {args.kind!r}; {nearest(args.kind, ['configs', *KINDS])}")
    from ncjax.core import roles

    return "\n".join(roles.known_of(getattr(roles, KINDS[args.kind])))


def command(argv: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 the user can mend it, 130 or 143 stopped, 1 a bug."""
    if argv is None:
        start.begin()
        return ended(command(sys.argv[1:]))
    first, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if first == "--version":
        print(f"ncjax {ncjax.__version__}")
        return 0
    if first in ("-h", "--help"):
        return tell("ncjax", Parser("ncjax", None), [], lambda _: (__doc__ or "").strip())
    if first == "list":
        parser = Parser("ncjax list", "Name what there is.")
        parser.add_argument("kind", nargs="?", default="configs", help=f"configs, {', '.join(KINDS)}")
        return tell("ncjax list", parser, rest, _listed)
    if first in COMMANDS:  # imported here: each takes only what it needs
        return importlib.import_module(f"ncjax.{COMMANDS[first]}").main(rest)
    main = importlib.import_module("ncjax.main").main
    return main(argv if first.startswith("-") else [f"--config={first}", *map(_key, rest)])


def _key(word: str) -> str:
    """`--lr=0.1` as `--config.lr=0.1`; flags of the run as they are."""
    name = word.removeprefix("--").partition("=")[0]
    own = name in FLAGS or name.startswith("config.")
    return f"--config.{word[2:]}" if word.startswith("--") and "=" in word and not own else word


if __name__ == "__main__":
    sys.exit(command())
