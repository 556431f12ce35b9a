"""The card beside a checkpoint: what rebuilds its model, so that `init=runs/pretrain` is all a study needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ncjax.core import files
from ncjax.core.errors import UserError
from ncjax.core.files import to_json, write_text
from ncjax.core.types import Model, Network, PyTree
from ncjax.core.values import record
from ncjax.data import Dataset
from ncjax.models.named import build
from ncjax.runs.files import check_format
from ncjax.tuning.plans import Target, plan_of

FORMAT = 2  # of model.json; 1 had none of it written down
Merge = Callable[[PyTree], PyTree]


class Card(NamedTuple):
    """What rebuilds the model of a checkpoint."""

    model: str  # the name of its function
    projection_layers: int  # of the projection head
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
        write_text(directory / "model.json", self.to_json())

    def to_json(self) -> str:
        """The card as text; `from_json` reads it back."""
        return to_json({"format": FORMAT, **self._asdict()}, indent=1)

    def fed(self, dataset: Dataset) -> Card:
        """The card with the size, crop and normalisation of the images that the network is fed here."""
        return self._replace(
            image_shape=dataset.image_shape,
            mean=dataset.mean,
            std=dataset.std,
            resize=dataset.fit.resize,
            interpolation=dataset.fit.interpolation,
        )

    def describe(self) -> dict[str, Any]:
        """What belongs in the results of whoever uses the network: which one it is, and what it is fed."""
        return {
            "model": self.model,
            "image_shape": self.image_shape,
            "resize": self.resize or self.image_shape[0],
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
            **(self.origin or {}),
        }

    def build(self) -> tuple[Model, PyTree, Merge | None]:
        """(model, shapes of its variables, what turns stored parameters into the model's own, if anything must)."""
        key, classes = jax.random.key(0), len(self.class_names)
        model = build(self.model, classes, self.projection_layers)
        variables = jax.eval_shape(lambda: model.init(key, self.image_shape))
        if self.method is None:
            return model, variables, None
        plan = plan_of(self.method, Network(self, model, variables), Target(classes, key, self.layer))
        return plan.model, plan.variables, plan.merge


def from_json(text: str, source: Path) -> Card:
    """The card that `to_json` wrote.

    Raises:
      UserError: it is damaged, or of another version of ncjax.
    """
    what = f"the model card in {source}"
    fields = files.from_json(text, what)
    check_format(fields, what, FORMAT)
    card = record(Card, {k: v for k, v in fields.items() if k != "format"}, what)
    height, width, channels = (*card.image_shape, 0, 0, 0)[:3]
    if len(card.image_shape) != 3 or min(height, width, channels) < 1 or {len(card.mean), len(card.std)} - {0, channels}:
        raise UserError(f"{what}: image_shape, mean and std do not go together; it may be damaged")
    for part, words in ((card.base, ("init", "which", "hash")), (card.origin, ("weights", "sha256", "layout"))):
        if part is not None and not all(isinstance(part.get(word), str) for word in words):
            raise UserError(f"{what}: base and origin say {', '.join(words)}, in text; it may be damaged")
    return card


def read(directory: Path) -> Card:
    """The card beside the checkpoints in a directory.

    Raises:
      UserError: it is damaged.
    """
    path = directory / "model.json"
    return from_json(files.read_text(path), path)


def knows(card: Card, data: str, class_names: tuple[str, ...]) -> bool:
    """Whether the classifier speaks of these classes: the same names and, where those are mere numbers, the same set.

    Weights trained elsewhere know the classes of the data set that `trained_on` names, all of them.
    """
    if card.origin is not None and card.method is None and card.data == data:  # its classes have numbers for names
        return len(card.class_names) == len(class_names)
    numbered = all(name.isdigit() for name in class_names)
    return card.class_names == class_names and (card.data == data or not numbered)
