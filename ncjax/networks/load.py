"""From a name to a `Network`: a run, a checkpoint, a delta, or weights trained elsewhere; and the data that it can take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.options import Also
from ncjax.core.resolve import absolute, unbound
from ncjax.core.roles import MODEL, resolve
from ncjax.core.types import Model, Network
from ncjax.core.values import OneOf
from ncjax.data import Data, Dataset
from ncjax.data import load as load_data
from ncjax.networks import checkpoint, weights
from ncjax.networks.card import Card, from_json, read
from ncjax.networks.weights import hub


class Init(NamedTuple):
    """A network to start from.

    Args:
      init: a run's workdir, its checkpoint directory, a `delta.safetensors` or exported file, or weights trained elsewhere:
        a file in one of the layouts of `ncjax.networks.weights`, `hf:OWNER/NAME` or `torchvision:NAME`.
      model: what the caller believes the architecture to be; None takes the card's word, or that of names and shapes.
      base: for a fine-tuned model whose base is no longer where it was: where it is now.
      which: "last" or "best" (by validation accuracy).
      allow_missing: globs over tensors that weights trained elsewhere may lack; they are drawn at random.
      trained_on: the data set whose classes, in its order, a classifier trained elsewhere tells apart: on it accuracy, NC3
        and NC4 mean something.
    """

    init: Annotated[str, Also("weights")]
    model: Annotated[str | None, MODEL] = None
    base: str | None = None
    which: Annotated[str, OneOf("last", "best")] = "last"
    allow_missing: list[str] = []
    trained_on: str | None = None


def load(options: Init) -> Network:
    """The network, its variables NumPy arrays, low-rank updates merged into their kernels.

    Raises:
      UserError: no checkpoint there, a damaged one, one of another architecture than `model`, or another base.
    """
    init = options.init
    if _directory(init) is None and (Path(init) / "model.safetensors").is_file():  # an exported folder
        init = str(Path(init) / "model.safetensors")
        options = options._replace(init=init)
    if Path(init).suffix in weights.SUFFIXES and not Path(init).exists() and not hub.is_remote(init):
        raise UserError(f"no file {init}")
    file = hub.local(init)
    if file.path.is_file():
        flat, text = weights.read(file.path)
        if "skip_from" in text:
            raise UserError(
                f"{init}: its classifier reads {text['skip_from']} too, which these names do not say; load the run, or "
                "what `ncjax delta` writes of it without --original"
            )
        if "card" not in text:
            return _foreign(options, file, flat)
        card, source = from_json(text["card"], Path(init)), init
    else:
        card, flat, source = _checkpointed(init, options.which)
    if options.model is not None:
        card = card._replace(model=_agreed(options.model, card.model, source))
    model, wanted, merge = card.build()
    names = trees.paths(wanted)
    if card.base is not None:
        flat = _base_leaves(card, card.base, options.base, source) | flat
    difference = trees.differences(flat, names)
    if difference:
        raise UserError(f"{source} is of another architecture than {card.model}: {difference}")
    _finite(flat, source)
    variables = jax.tree.unflatten(jax.tree.structure(wanted), [flat[p] for p in names])
    if merge is not None:  # what is left is a model like any other, whatever is done with it next
        variables = jax.tree.map(np.asarray, {**variables, "params": merge(variables["params"])})
        card = card._replace(method="tuning.full_ft", layer=None, base=None)
        model, _, _ = card.build()
    return Network(card, model, variables)


def _finite(arrays: dict[str, np.ndarray], source: str) -> None:
    """Raises where weights are NaN or infinite, and names them."""
    bad = [name for name, x in arrays.items() if x.dtype.kind in "fV" and not np.isfinite(np.asarray(x, np.float32)).all()]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UserError(f"{source}: {', '.join(bad[:3])}{more} {'are' if len(bad) > 1 else 'is'} NaN or infinite in part")


def _agreed(given: str, stored: str, source: str) -> str:
    """What the caller takes the model for, which must be what it was trained as.

    Raises:
      UserError: another function, or other settings.
    """
    wanted = resolve(given, MODEL)
    try:
        known = resolve(stored, MODEL)
    except UserError:  # the file with one's own model lies elsewhere now
        return absolute(given)
    if _meant(wanted) != _meant(known):
        raise UserError(f"model={given}: {source} was trained as {stored}; leave model out")
    return stored


def _meant(function: Callable[..., Any]) -> tuple[str, Any, dict[str, Any]]:
    """A function, and what it is set to."""
    plain = unbound(function)
    defaults = {p.name: p.default for p in inspect.signature(plain).parameters.values() if p.default is not p.empty}
    settings = function.keywords if isinstance(function, functools.partial) else {}
    return plain.__qualname__, getattr(plain, "__code__", plain), {**defaults, **settings}


def load_data_for(card: Card, options: Data) -> Dataset:
    """A data set in the size, channels and normalisation that the network was trained on.

    Args:
      card: the network's.
      options: a size or channels given there are kept.

    Raises:
      UserError: the network cannot take images of that size or of so many channels.
    """
    height, width, channels = card.image_shape
    side = height if height == width else None  # images that are not square keep their own size
    if options.image_size in (None, side):  # another size is not cropped unless asked for
        options = options._replace(image_size=side, resize=options.resize or card.resize)
    dataset = load_data(
        options._replace(channels=options.channels or channels, interpolation=options.interpolation or card.interpolation)
    )
    if dataset.image_shape != card.image_shape:
        shapes = (x._replace(method=None).build()[1] for x in (card, card._replace(image_shape=dataset.image_shape)))
        own, other = (trees.paths(x) for x in shapes)
        difference = trees.differences(own, other)
        if difference:
            raise UserError(
                f"{card.model} was trained on images {card.image_shape} and cannot take {dataset.image_shape} "
                f"({difference}); leave image_size and channels to it"
            )
    if not card.mean:
        return dataset
    if not options.mean:
        return dataset._replace(mean=card.mean, std=card.std)
    given, own = ((dataset.mean, dataset.std), (card.mean, card.std))
    if np.allclose(given, own, atol=5e-3):
        return dataset
    said = "mean {} and std {}".format(*([round(x, 3) for x in one] for one in own))
    return dataset._replace(notes=(*dataset.notes, f"mean and std are set, and the network was trained with {said}"))


def backbone_digest(network: Network) -> str:
    """Hash of what a fine-tuned model takes over from its base: parameters and statistics of the backbone."""
    return trees.digest(trees.only(network.variables, network.model.backbone))


def reported(init: str) -> str:
    """The checkpoint of a run that its results are of: "best" of a fine-tuned network, "last" of a pre-trained one."""
    directory = _directory(init)
    return "last" if directory is not None and read(directory).method is None else "best"


def _directory(init: str) -> Path | None:
    """The folder of a run's checkpoints, or such a folder itself; None where there is none."""
    path = Path(init)
    return next((d for d in (path / "checkpoints", path) if (d / "model.json").is_file()), None)


def _checkpointed(init: str, which: str) -> tuple[Card, dict[str, np.ndarray], str]:
    """(card, leaves below `variables` by path, where they are) of a run or a checkpoint directory."""
    directory = _directory(init)
    if directory is None:
        raise UserError(f"init={init!r}: no checkpoint there (expected {Path(init) / 'checkpoints' / 'model.json'})")
    card, prefix = read(directory), "variables/"
    flat = {
        p.removeprefix(prefix): np.asarray(x) for p, x in checkpoint.read(directory, which).items() if p.startswith(prefix)
    }
    return card, flat, f"checkpoint {directory}"


def _base_leaves(card: Card, known: dict, base: str | None, source: str) -> dict[str, np.ndarray]:
    """Leaves of the model that a delta was tuned from.

    Raises:
      UserError: the base is not where it was, or is another one.
    """
    where = base or known["init"]
    try:
        network = load(Init(where, which=known["which"], model=card.model, allow_missing=known.get("allow_missing", [])))
    except UserError as e:
        raise UserError(
            f"{source} holds only what was tuned from {known['init']}: {e}; name its base with base=..."
        ) from None
    found = backbone_digest(network)
    if found != known["hash"]:
        raise UserError(
            f"{source} was tuned from {known['init']} (backbone {known['hash']}), but {where} is another one "
            f"(backbone {found}); name the right one with base=..."
        )
    return trees.paths(trees.only(network.variables, network.model.backbone))


def _foreign(options: Init, file: hub.Local, arrays: dict[str, np.ndarray]) -> Network:
    """A network trained elsewhere."""
    init = options.init
    match, variables, _ = weights.load(arrays, init, options.model, options.allow_missing, file.preprocess)
    _finite({name: np.asarray(x) for name, x in arrays.items()}, init)
    model: Model = match.network
    names = tuple(str(k) for k in range(model.num_classes)) if match.layout.classifier else weights.NO_CLASSES
    fed = match.preprocess
    origin = {
        "weights": init if hub.is_remote(init) else file.path.name,
        "sha256": weights.sha256(file.path),
        "layout": match.layout.title,
    }
    card = Card(
        model=match.model,
        projection_layers=0,
        image_shape=match.image_shape,
        class_names=names,
        data=options.trained_on or file.path.name,
        mean=fed.mean,
        std=fed.std,
        resize=fed.resize,
        interpolation=fed.interpolation,
        origin=origin,
    )
    return Network(card, model, variables)
