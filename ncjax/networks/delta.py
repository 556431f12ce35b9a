"""Deltas: what fine-tuning changed, in one small file that is bound to its base by a hash.

    python -m ncjax.delta runs/finetune model.safetensors [--base runs/pretrain] [--which best] [--original] [--force]

writes the joined model (tuned leaves over their base, LoRA merged) as safetensors, which `init=model.safetensors` reads
back; with --original under the names, orders and shapes of the weights that it was tuned from, for the tool they come from.
Where OUT is a folder, `model.safetensors` in it, and `config.json` as timm writes it: class names, size and normalisation,
and of a network with a skip connection (SCL FT) the module that it starts from; docs/networks.md has it in torch.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from ncjax.core import trees
from ncjax.core.cli import Parser, tell
from ncjax.core.errors import UserError
from ncjax.core.files import to_json, write_text
from ncjax.core.resolve import short_name, split_call
from ncjax.core.types import Model, Network, PyTree
from ncjax.models.named import build
from ncjax.networks import weights
from ncjax.networks.card import Card
from ncjax.networks.load import Init, load

NAME = "delta.safetensors"
# timm's names of networks, where they are others than ours.
TIMM = {
    "mobilenet_v2": "mobilenetv2_100",
    "vit_ti": "vit_tiny_patch16_224",
    "vit_s": "vit_small_patch16_224",
    "vit_b": "vit_base_patch16_224",
    "convnext_t": "convnext_tiny",
    **{f"efficientnet_lite{i}": f"tf_efficientnet_lite{i}" for i in range(5)},
}
MODEL, CONFIG = "model.safetensors", "config.json"  # of an exported folder


def write(path: Path, card: Card, variables: PyTree, unsaved: frozenset[str]) -> int:
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


def export(
    init: str, out: Path, *, which: str = "best", base: str | None = None, original: bool = False, force: bool = False
) -> int:
    """Writes a run's model whole; returns the number of its parameters.

    Args:
      init, which, base: as for `networks.load.Init`.
      out: a `.safetensors` file, or a folder for it and its `config.json`.
      original: under the names of the layout that the weights came in.
      force: replace a file that ncjax did not write.

    Raises:
      UserError: not a model, one that cannot be written so, or `out` is no place for one.
    """
    if out.suffix not in (".safetensors", "") or not out.absolute().parent.is_dir():
        raise UserError(f"{out}: expected the path of a .safetensors file, or of a folder, in a folder that exists")
    folder = out if out.suffix == "" else None
    out = out / MODEL if folder else out
    _free(out, init, base, force)
    if folder is not None and (folder / CONFIG).exists() and not out.exists() and not force:
        raise UserError(f"{folder / CONFIG} is there already, and none of this command; choose another, or add --force")
    network = load(Init(init, which=which, base=base))
    card, _, variables = network
    if original:
        arrays, text = _original(init, network)
    else:
        arrays = {p: np.asarray(x) for p, x in trees.paths(variables).items()}
        text = {"card": card._replace(base=None).to_json()}
    if folder is not None:
        folder.mkdir(exist_ok=True)
    weights.write(out, arrays, text)
    if folder is not None:
        write_text(folder / CONFIG, to_json(_as_timm(card, network.model, original), indent=2))
    return trees.count(variables["params"])


def _original(init: str, network: Network) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, text) of a network under the names of the layout that its weights came in.

    Raises:
      UserError: they came in none, or that layout cannot hold the network.
    """
    card, model, variables = network
    if card.origin is None:
        raise UserError(f"{init} was not tuned from weights trained elsewhere: there are no original names")
    layout = card.origin["layout"]
    if set(variables["params"]["head"]) != {"linear"} or not (model.readout == model.penultimate or _adds(card)):
        raise UserError(
            f"{init}: its classifier reads {model.readout}, which a network of the layout {layout} does not have; leave "
            "--original out"
        )
    if card.method is not None and not weights.has_classifier(layout):
        raise UserError(
            f"{init}: files of the layout {layout} have no classifier, and the tuned one would be lost; leave "
            "--original out"
        )
    if card.method is not None and not build(card.model, 1).linear:
        raise UserError(f"{init}: its classifier is linear, that of {card.model} is not; leave --original out")
    text = {"skip_from": _skip_from(card, model, original=True)} if _adds(card) else {}
    return weights.export(variables, model, layout), text


def _adds(card: Card) -> bool:
    """Whether the classifier reads the penultimate feature plus a block's, padded: SCL FT as in the paper."""
    name, settings = split_call(card.method or "")
    return short_name(name) == "scl_ft" and settings.get("skip", "pad") == "pad"


def _as_timm(card: Card, network: Model, original: bool) -> dict[str, Any]:
    """config.json of a timm repository, and what a classifier with a skip connection reads."""
    height, width, channels = card.image_shape
    described: dict[str, Any] = {
        "architecture": TIMM.get(short_name(card.model), short_name(card.model)),
        "num_classes": len(card.class_names),
        "label_names": list(card.class_names),
        "pretrained_cfg": {
            "input_size": [channels, height, width],
            "interpolation": card.interpolation,
            "crop_pct": height / (card.resize or height),
            "crop_mode": "center",
            "mean": list(card.mean),
            "std": list(card.std),
            "num_classes": len(card.class_names),
        },
        "ncjax": {"model": card.model, "method": card.method},
    }
    if _adds(card):
        described["ncjax"] |= {"skip_from": _skip_from(card, network, original)}
        if original and card.origin is not None:
            described["ncjax"] |= {"classifier": weights.classifier_of(network, card.origin["layout"])}
    return described


def _skip_from(card: Card, network: Model, original: bool) -> str:
    """The module whose output the classifier reads beside the last, by its own or its original name."""
    layer, layout = str(card.layer), (card.origin or {}).get("layout")
    return weights.module_of(layer, network, layout) if original and layout else layer


def _free(out: Path, init: str, base: str | None, force: bool) -> None:
    """Refuses to write over what is read, what another run keeps, and files that ncjax did not write."""
    inputs = [Path(given) for given in (init, base) if given]
    if any(out.resolve().is_relative_to(path.resolve()) for path in inputs):
        raise UserError(f"{out} is what is read, or lies in it; write to another place")
    if out.exists() and not force and (out.name == NAME or not weights.is_own(out)):
        raise UserError(f"{out} is there already, and no model that this command wrote; choose another, or add --force")


def main(argv: list[str] | None = None) -> int:
    """The exit code, as of `core.cli.tell`."""
    parser = Parser("python -m ncjax.delta", "Write a fine-tuned model, joined with its base, as one safetensors file.")
    parser.add_argument("init", help="a run, or its delta.safetensors")
    parser.add_argument("out", help="the .safetensors file to write, or a folder for it and its config.json")
    parser.add_argument("--base", help="where the base is, if not where it was")
    parser.add_argument("--original", action="store_true", help="under the names that the weights had where they come from")
    parser.add_argument("--which", default="best", choices=("best", "last"), help="which checkpoint of a run")
    parser.add_argument("--force", action="store_true", help="replace a file that ncjax did not write")

    def join(args: Namespace) -> str:
        out = Path(args.out)
        count = export(args.init, out, which=args.which, base=args.base, original=args.original, force=args.force)
        out = out if out.is_file() else out / MODEL
        return f"{args.out}: {count:,} parameters, {out.stat().st_size:,} bytes"

    return tell("ncjax.delta", parser, argv, join)
