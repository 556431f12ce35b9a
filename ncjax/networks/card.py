"""The card beside a checkpoint: what rebuilds its model, so that `init=runs/pretrain` is all a study needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.resolve import pick, resolve
from ncjax.core.types import Model, PyTree
from ncjax.data import Dataset
from ncjax.data import load as load_data
from ncjax.features import passes
from ncjax.networks import checkpoint, weights
from ncjax.networks.weights import hub
from ncjax.tuning import plans

Merge = Callable[[PyTree], PyTree]


class Card(NamedTuple):
    """What rebuilds the model of a checkpoint."""

    model: str  # dotted name
    head: int  # layers of the projection head
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]  # what the classifier's outputs stand for
    data: str = ""  # the data set's name
    method: str | None = None  # fine-tuning method, if the checkpoint is a fine-tuned one
    layer: str | None = None
    mean: tuple[float, ...] = ()  # [C] what the images were normalised by; empty for each data set's own
    std: tuple[float, ...] = ()
    batch_norm: str = "freeze"  # policy for the statistics of frozen blocks
    base: dict[str, Any] | None = None  # {"init", "which", "hash", ...}: where leaves that are not stored come from
    resize: int | None = None  # the short side before the central crop; None for that of image_shape
    interpolation: str = "bilinear"
    origin: dict[str, str] | None = None  # of weights trained elsewhere: {"weights", "sha256", "layout"}

    def write(self, directory: Path) -> None:
        """Writes the card, before the first checkpoint."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "model.json").write_text(self.to_json())

    def to_json(self) -> str:
        """The card as text; `from_json` reads it back."""
        return json.dumps(self._asdict(), indent=1)

    def fed(self, dataset: Dataset) -> Card:
        """The card with the size, crop and normalisation of the images that the network is fed here."""
        return self._replace(image_shape=dataset.image_shape, mean=dataset.mean, std=dataset.std, resize=dataset.fit.resize,
                             interpolation=dataset.fit.interpolation)

    def describe(self) -> dict[str, Any]:
        """What belongs in the results of whoever uses the network: which one it is, and what it is fed."""
        return {"model": self.model, "image_shape": self.image_shape, "resize": self.resize or self.image_shape[0],
                "interpolation": self.interpolation, "mean": self.mean, "std": self.std, **(self.origin or {})}

    def build(self) -> tuple[Model, PyTree, Merge | None]:
        """(model, shapes of its variables, what turns stored parameters into the model's own, if anything must)."""
        key, classes = jax.random.key(0), len(self.class_names)
        model = resolve(self.model)(num_classes=classes, head=self.head)
        variables = jax.eval_shape(lambda: model.init(key, self.image_shape))
        if self.method is None:
            return model, variables, None
        plan = plan_of(self.method, model, variables, self, classes, key, self.layer)
        return plan.model, plan.variables, plan.merge


def from_json(text: str, source: Path) -> Card:
    """The card that `to_json` wrote.

    Raises:
      UserError: it is damaged.
    """
    try:
        return Card(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()})
    except (ValueError, TypeError, AttributeError) as e:
        raise UserError(f"the model card in {source} is damaged ({e})") from None


def read(directory: Path) -> Card:
    """The card beside the checkpoints in a directory.

    Raises:
      UserError: it is damaged.
    """
    path = directory / "model.json"
    return from_json(path.read_text(), path)


def plan_of(method: str, model: Model, variables: PyTree, card: Card, num_classes: int, key: jax.Array,
            layer: str | None) -> plans.Plan:
    """A fine-tuning method, by dotted name, applied to a model; works on shapes as on arrays.

    Raises:
      UserError: unknown method, a setting that it cannot take, or a pattern that matches no block.
    """
    if not method.startswith("tuning."):
        raise UserError(f"method={method!r}: a function of ncjax.tuning, such as tuning.scl_ft")
    function = resolve(method)
    taken = {"model", "variables", "num_classes", "key", "layer", "dims"} & set(getattr(function, "keywords", ()))
    if taken:
        raise UserError(f"method={method!r}: {', '.join(sorted(taken))} cannot be set there; blocks are named by layer=...")
    dims = passes.widths(model, variables, card.image_shape)
    return function(model, variables, num_classes, key, layer=layer or None, dims=dims)


def knows(card: Card, data: str, class_names: tuple[str, ...]) -> bool:
    """Whether the classifier speaks of these classes: the same names and, where those are mere numbers, the same set.

    Weights trained elsewhere know the classes of the data set that `trained_on` names, all of them.
    """
    if card.origin is not None and card.method is None and card.data == data:  # its classes have numbers for names
        return len(card.class_names) == len(class_names)
    numbered = all(name.isdigit() for name in class_names)
    return card.class_names == class_names and (card.data == data or not numbered)


def load_data_for(card: Card, name: str, options: dict[str, Any]) -> Dataset:
    """A data set in the size, channels and normalisation that the model was trained on.

    Args:
      card: the model's.
      name, options: of `data.load`; a size or channels given there are kept.

    Raises:
      UserError: the network cannot take images of that size or of so many channels.
    """
    height, width, channels = card.image_shape
    side = height if height == width else None  # images that are not square keep their own size
    chosen = pick(load_data, options)
    if chosen.get("image_size") in (None, side):  # another size is not cropped unless asked for
        chosen |= {"image_size": side, "resize": chosen.get("resize") or card.resize}
    chosen |= {"channels": chosen.get("channels") or channels,
               "interpolation": chosen.get("interpolation") or card.interpolation}
    dataset = load_data(name, **chosen)
    if dataset.image_shape != card.image_shape:
        shapes = (x._replace(method=None).build()[1] for x in (card, card._replace(image_shape=dataset.image_shape)))
        difference = trees.differences(*(trees.paths(x) for x in shapes))
        if difference:
            raise UserError(f"{card.model} was trained on images {card.image_shape} and cannot take {dataset.image_shape} "
                            f"({difference}); leave image_size and channels to it")
    return dataset._replace(mean=card.mean, std=card.std) if card.mean else dataset


def backbone_digest(model: Model, variables: PyTree) -> str:
    """Hash of what a fine-tuned model takes over from its base: parameters and statistics of the backbone."""
    return trees.digest(trees.only(variables, model.backbone))


def _checkpointed(init: str, which: str) -> tuple[Card, dict[str, np.ndarray], str]:
    """(card, leaves below `variables` by path, where they are) of a run or a checkpoint directory."""
    path = Path(init)
    directory = next((d for d in (path / "checkpoints", path) if (d / "model.json").is_file()), None)
    if directory is None:
        raise UserError(f"init={init!r}: no checkpoint there (expected {path / 'checkpoints' / 'model.json'})")
    card, prefix = read(directory), "variables/"
    flat = {p.removeprefix(prefix): np.asarray(x) for p, x in checkpoint.read(directory, which).items()
            if p.startswith(prefix)}
    return card, flat, f"checkpoint {directory}"


def _base_leaves(card: Card, base: str | None, source: str) -> dict[str, np.ndarray]:
    """Leaves of the model that a delta was tuned from.

    Raises:
      UserError: the base is not where it was, or is another one.
    """
    where = base or card.base["init"]
    try:
        _, model, variables = load(where, which=card.base["which"], model=card.model,
                                   allow_missing=card.base.get("allow_missing", []))
    except UserError as e:
        raise UserError(f"{source} holds only what was tuned from {card.base['init']}: {e}; name its base with "
                        "base=...") from None
    found = backbone_digest(model, variables)
    if found != card.base["hash"]:
        raise UserError(f"{source} was tuned from {card.base['init']} (backbone {card.base['hash']}), but {where} is "
                        f"another one (backbone {found}); name the right one with base=...")
    return trees.paths(trees.only(variables, model.backbone))


def _foreign(init: str, file: hub.Local, arrays: dict[str, np.ndarray], model: str | None,
             allow_missing: list[str], trained_on: str | None) -> tuple[Card, Model, PyTree]:
    """A network trained elsewhere."""
    match, variables, _ = weights.load(arrays, init, model, allow_missing, file.preprocess)
    classes = match.network.num_classes
    names = tuple(str(k) for k in range(classes)) if match.layout.classifier else weights.NO_CLASSES
    fed = match.preprocess
    origin = {"weights": init if hub.is_remote(init) else file.path.name, "sha256": weights.sha256(file.path),
              "layout": match.layout.title}
    card = Card(match.model, 0, match.image_shape, names, trained_on or file.path.name, mean=fed.mean, std=fed.std,
                resize=fed.resize, interpolation=fed.interpolation, origin=origin)
    return card, match.network, variables


def load(init: str, *, model: str | None = None, base: str | None = None, which: str = "last",
         allow_missing: list[str] = [], trained_on: str | None = None) -> tuple[Card, Model, PyTree]:  # noqa: B006
    """The model that a run trained: (card, model, variables as NumPy arrays), low-rank updates merged into their kernels.

    Args:
      init: a run's workdir, its checkpoint directory, a `delta.safetensors` or exported file, or weights trained elsewhere:
        a file in one of the layouts of `ncjax.weights`, `hf:OWNER/NAME` or `torchvision:NAME`.
      model: what the caller believes the architecture to be; None takes the card's word, or that of names and shapes.
      base: for a fine-tuned model whose base is no longer where it was: where it is now.
      which: "last" or "best" (by validation accuracy).
      allow_missing: globs over tensors that weights trained elsewhere may lack; they are drawn at random.
      trained_on: the data set whose classes, in its order, a classifier trained elsewhere tells apart: on it accuracy, NC3
        and NC4 mean something.

    Raises:
      UserError: no checkpoint there, a damaged one, one of another architecture than `model`, or another base.
    """
    file = hub.local(init)
    if file.path.is_file():
        flat, text = weights.read(file.path)
        if "card" not in text:
            return _foreign(init, file, flat, model, allow_missing, trained_on)
        card, source = from_json(text["card"], Path(init)), init
    else:
        card, flat, source = _checkpointed(init, which)
    card = card if model is None else card._replace(model=model)
    network, wanted, merge = card.build()
    names = trees.paths(wanted)
    if card.base is not None:
        flat = _base_leaves(card, base, source) | flat
    difference = trees.differences(flat, names)
    if difference:
        raise UserError(f"{source} is of another architecture than {card.model}: {difference}")
    variables = jax.tree.unflatten(jax.tree.structure(wanted), [flat[p] for p in names])
    if merge is not None:  # what is left is a model like any other, whatever is done with it next
        variables = jax.tree.map(np.asarray, {**variables, "params": merge(variables["params"])})
        card = card._replace(method="tuning.full_ft", layer=None, base=None)
        network, _, _ = card.build()
    return card, network, variables
