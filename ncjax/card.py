"""The card beside a checkpoint: what rebuilds its model, so that `init=runs/pretrain` is all a study needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ncjax import checkpoint, features, trees, tuning
from ncjax.data import load as load_data
from ncjax.lookup import pick, resolve
from ncjax.types import Model, PyTree, UserError


class Card(NamedTuple):
    """What rebuilds the model of a checkpoint."""

    model: str  # dotted name
    head: int  # layers of the projection head
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]  # what the classifier's outputs stand for
    data: str = ""  # the data set's name
    method: str | None = None  # fine-tuning method, if the checkpoint is a fine-tuned one
    layer: str | None = None

    def write(self, directory: Path) -> None:
        """Writes the card, before the first checkpoint."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "model.json").write_text(json.dumps(self._asdict(), indent=1))

    def build(self) -> tuple[Model, PyTree]:
        """(model, shapes of its variables)."""
        key, classes = jax.random.key(0), len(self.class_names)
        model = resolve(self.model)(num_classes=classes, head=self.head)
        variables = jax.eval_shape(lambda: model.init(key, self.image_shape))
        if self.method is None:
            return model, variables
        plan = plan_of(self.method, model, variables, self, classes, key, self.layer)
        return plan.model, plan.variables


def plan_of(method: str, model: Model, variables: PyTree, card: Card, num_classes: int, key: jax.Array,
            layer: str | None) -> tuning.Plan:
    """A fine-tuning method, by dotted name, applied to a model; works on shapes as on arrays.

    Raises:
      UserError: unknown method, or a pattern that matches no block.
    """
    dims = features.widths(model, variables, card.image_shape)
    return resolve(method)(model, variables, num_classes, key, layer=layer or tuning.default_layer(model), dims=dims)


def knows(card: Card, data: str, class_names: tuple[str, ...]) -> bool:
    """Whether the classifier speaks of these classes: the same names and, where those are mere numbers, the same set."""
    numbered = all(name.isdigit() for name in class_names)
    return card.class_names == class_names and (card.data == data or not numbered)


def like(card: Card, options: dict[str, Any]) -> dict[str, Any]:
    """Options of `data.load` with size and channels of the images the model was trained on, unless they are given."""
    height, width, channels = card.image_shape
    side = height if height == width else None  # images that are not square keep their own size
    chosen = pick(load_data, options)
    return {**chosen, "image_size": chosen.get("image_size") or side, "channels": chosen.get("channels") or channels}


def load(init: str, *, which: str = "last", model: str | None = None) -> tuple[Card, Model, PyTree]:
    """The model that a run trained: (card, model, variables as NumPy arrays).

    Args:
      init: a run's workdir, or its checkpoint directory.
      which: "last" or "best" (by validation accuracy).
      model: what the caller believes the architecture to be; None takes the card's word.

    Raises:
      UserError: no checkpoint there, a damaged one, or one of another architecture than `model`.
    """
    directory = next((d for d in (Path(init) / "checkpoints", Path(init)) if (d / "model.json").is_file()), None)
    if directory is None:
        raise UserError(f"init={init!r}: no checkpoint there (expected {Path(init) / 'checkpoints' / 'model.json'})")
    try:
        values = json.loads((directory / "model.json").read_text())
        card = Card(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (ValueError, TypeError) as e:
        raise UserError(f"{directory / 'model.json'} is damaged ({e})") from None
    card = card if model is None else card._replace(model=model)
    network, wanted = card.build()
    prefix = "variables/"
    flat = {p.removeprefix(prefix): np.asarray(x) for p, x in checkpoint.read(directory, which).items()
            if p.startswith(prefix)}
    difference = trees.differences(flat, trees.paths(wanted))
    if difference:
        raise UserError(f"checkpoint {directory} is of another architecture than {card.model}: {difference}")
    return card, network, jax.tree.unflatten(jax.tree.structure(wanted), [flat[p] for p in trees.paths(wanted)])
