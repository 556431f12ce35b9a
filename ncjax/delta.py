"""Deltas: what fine-tuning changed, in one small file that is bound to its base by a hash.

    python -m ncjax.delta runs/finetune model.safetensors [--base runs/pretrain] [--which best]

writes the joined model (tuned leaves over their base, LoRA merged) as safetensors, which `init=model.safetensors` reads
back and any other tool can.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from ncjax import card as cards
from ncjax import trees, weights
from ncjax.types import PyTree, UserError

NAME = "delta.safetensors"


def write(path: Path, card: cards.Card, variables: PyTree, unsaved: frozenset[str]) -> int:
    """Writes the leaves that are not the base's, with the card that names it; returns the file's bytes.

    Args:
      path: a `.safetensors` file.
      card: of the fine-tuned model, with its base's hash.
      variables: all of the model.
      unsaved: `plans.frozen_paths`.
    """
    arrays = {p: np.asarray(x) for p, x in trees.paths(variables).items() if f"variables/{p}" not in unsaved}
    weights.write(path, arrays, {"card": card.to_json()})
    return path.stat().st_size


def export(init: str, out: Path, *, which: str = "best", base: str | None = None) -> int:
    """Writes a run's model whole; returns the number of its parameters.

    Args:
      init, which, base: as for `card.load`.
      out: a `.safetensors` file.

    Raises:
      UserError: not a model, or `out` is no place for one.
    """
    if out.suffix != ".safetensors" or not out.absolute().parent.is_dir():
        raise UserError(f"{out}: expected the path of a .safetensors file in a folder that exists")
    card, _, variables = cards.load(init, which=which, base=base)
    arrays = {p: np.asarray(x) for p, x in trees.paths(variables).items()}
    weights.write(out, arrays, {"card": card._replace(base=None).to_json()})
    return trees.count(variables["params"])


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line that says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m ncjax.delta", description="Write a fine-tuned model, joined with its "
                                     "base, as one safetensors file.")
    parser.add_argument("init", help="a run, or its delta.safetensors")
    parser.add_argument("out", help="the file to write")
    parser.add_argument("--base", help="where the base is, if not where it was")
    parser.add_argument("--which", default="best", choices=("best", "last"), help="which checkpoint of a run")
    args = parser.parse_args(argv)
    try:
        count = export(args.init, Path(args.out), which=args.which, base=args.base)
    except (UserError, OSError) as e:
        print(f"ncjax: {e}", file=sys.stderr)
        return 2
    print(f"{args.out}: {count:,} parameters, {Path(args.out).stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
