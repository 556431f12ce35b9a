"""A trained network in use: photos in, classes or features out.

>>> net = ncjax.load("runs/finetune")
>>> net.predict("photos").labels
>>> net.features("photos", layer="layer3.0")
"""

from __future__ import annotations

import collections
import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from ncjax.core.errors import UserError, nearest
from ncjax.core.types import Network
from ncjax.data import images as im
from ncjax.data.readers import EXTENSIONS
from ncjax.networks.card import Card

ALL_CLASSES = 100  # classes up to which a table has a column for each
MOST_LIKELY = 5  # columns of a table with more


class Predictions(NamedTuple):
    """What a classifier says of N images."""

    labels: tuple[str, ...]  # [N] the most probable class of each
    probabilities: np.ndarray  # [N, K] float32, softmax of the logits
    classes: tuple[str, ...]  # [K]
    files: tuple[str, ...]  # [N] where the images came from; empty where they were arrays
    unread: tuple[str, ...] = ()  # files that do not decode, or are of other types, and why: they have no row

    def to_csv(self) -> str:
        """A table: file, label, probability, then the probability of every class, or of the five likeliest of many."""
        names = self.files or tuple(map(str, range(len(self.labels))))
        out = io.StringIO()
        writer = csv.writer(out)
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :MOST_LIKELY]
        few = len(self.classes) <= ALL_CLASSES
        more = (
            list(self.classes) if few else [f"{w} {i + 1}" for i in range(order.shape[1]) for w in ("label", "probability")]
        )
        writer.writerow(["file", "label", "probability", *more])
        for name, label, row, best in zip(names, self.labels, self.probabilities, order, strict=True):
            rest = row if few else [x for k in best for x in (self.classes[k], row[k])]
            shown = [f"{x:.6g}" if isinstance(x, np.floating) else x for x in (row.max(), *rest)]
            writer.writerow([name, label, *shown])
        return out.getvalue()


class Predictor:
    """A network with its preprocessing and the names of its classes.

    Attributes:
      card: what it is: model, classes, image size, normalisation, where it comes from.
      network: card, pure functions and variables, for everything else in ncjax.
      classes: names [K].
      layers: blocks whose features can be asked for, from the input on.
    """

    def __init__(self, network: Network):
        card: Card = network.card
        if not card.mean:
            raise UserError(f"the card of {card.model} does not say how its images are normalised")
        self.network, self.card = network, card
        self.classes, self.layers = card.class_names, network.model.layers
        self._scale = 1 / (255 * np.asarray(card.std, np.float32))
        self._shift = np.asarray(card.mean, np.float32) / np.asarray(card.std, np.float32)
        self._apply = jax.jit(lambda variables, images: network.model.apply(variables, images)[0])
        self._variables = jax.device_put(network.variables)

    def __repr__(self) -> str:
        return f"Predictor({self.card.model}, {len(self.classes)} classes, images {self.card.image_shape})"

    def predict(self, images: Any, *, batch_size: int = 64, skip_bad: bool = False) -> Predictions:
        """The classes of images.

        Args:
          images: a file, a folder (searched to its depth), a list of them, Pillow images, or uint8 arrays [H, W],
            [H, W, C], [N, H, W] or [N, H, W, C], with values as files hold them, 0 to 255. They are resized,
            cropped and normalised as in training.
          batch_size: images at a time; what is left over is padded, so that one program is compiled.
          skip_bad: leave out files that do not decode, and list them, instead of raising.

        Raises:
          UserError: no image there, one that does not decode, or a network without a classifier.
        """
        if self.network.model.num_classes != len(self.classes) or not self.classes:
            raise UserError(f"{self.card.model} has no classifier; ask it for features, or fine-tune it")
        source, unread = _read_first(_source(images), skip_bad)
        unread += _others(images)
        logits = np.concatenate([np.asarray(f["logits"])[:n] for f, n in self._features(source, batch_size)])
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
        return Predictions(
            labels=tuple(self.classes[k] for k in logits.argmax(axis=1)),
            probabilities=probabilities,
            classes=self.classes,
            files=tuple(map(str, source)) if source and isinstance(source[0], str) else (),
            unread=unread,
        )

    def features(self, images: Any, *, layer: str | None = None, batch_size: int = 64) -> np.ndarray:
        """Features [N, D] of images, float32: of the layer, or of the one that the classifier reads.

        Args:
          images, batch_size: as for `predict`.
          layer: one of `layers`, pooled over positions.

        Raises:
          UserError: no such layer, or what `predict` raises.
        """
        layer = self.network.model.readout if layer is None else layer
        if layer not in self.layers:
            raise UserError(f"no layer {layer!r}; {nearest(layer, self.layers)}")
        found = [np.asarray(f[layer])[:n] for f, n in self._features(_source(images), batch_size)]
        return np.concatenate(found)

    def _features(self, source: Sequence[Any], batch_size: int) -> Iterator[tuple[dict[str, Any], int]]:
        """(features of a padded batch, how many of its rows are images) of every batch."""
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: at least 1")
        height, width, channels = self.card.image_shape
        side = height if height == width else None
        fit = im.Fit(side, self.card.resize, self.card.interpolation, channels)
        for start in range(0, len(source), batch_size):
            part = source[start : start + batch_size]
            items = np.empty(len(part), object)
            items[:] = part
            pixels = im.take(im.Lazy(items, _pixels, fit), np.arange(len(part)))
            if pixels.shape[1:] != self.card.image_shape:
                raise UserError(f"images are {pixels.shape[1:]}; {self.card.model} takes {self.card.image_shape}")
            fed = pixels.astype(np.float32) * self._scale - self._shift
            padding = np.zeros((min(batch_size, len(source)) - len(part), *fed.shape[1:]), np.float32)
            yield self._apply(self._variables, np.concatenate([fed, padding])), len(part)


def _pixels(item: Any) -> Any:
    return im.picture_of(item) if isinstance(item, str) else item


def _source(images: Any) -> list[Any]:
    """Paths, or uint8 arrays [H, W, C]."""
    if _is_path(images):
        found = _files(Path(images).expanduser())
    elif isinstance(images, Image.Image):
        found = [im.upright(images, getattr(images, "filename", "") or "the picture")]
    elif isinstance(images, list | tuple):
        found = [one for image in images for one in _source(image)]
    else:
        found = list(_arrays(images))
    if not found:
        raise UserError("no images were given")
    return found


def _visible(folder: Path) -> list[Path]:
    """The files of a folder, to its depth, but for hidden ones and those in hidden folders."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return [p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def _files(path: Path) -> list[str]:
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"no file or folder {path}")
        return [str(path)]
    found = [str(p) for p in _visible(path) if p.suffix.lower() in EXTENSIONS]
    if not found:
        raise UserError(f"{path} holds no images ({' '.join(EXTENSIONS)})")
    return found


def _others(images: Any) -> tuple[str, ...]:
    """How many files of folders are of other types."""
    paths = [Path(x).expanduser() for x in (images if isinstance(images, list | tuple) else [images]) if _is_path(x)]
    said = []
    for folder in (p for p in paths if p.is_dir()):
        types = collections.Counter(p.suffix.lower() or "no suffix" for p in _visible(folder))
        types = {kind: n for kind, n in types.items() if kind not in EXTENSIONS}
        if types:
            kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(types.items()))
            said.append(f"{folder}: {sum(types.values())} files of other types ({kinds})")
    return tuple(said)


def _is_path(x: Any) -> bool:
    return isinstance(x, str | os.PathLike)


def _arrays(images: Any) -> np.ndarray:
    """[N, H, W, C] of one image or several."""
    x = np.asarray(images)
    if x.dtype != np.uint8 or x.ndim not in (2, 3, 4):
        raise UserError(
            f"images are {x.dtype} {list(x.shape)}; expected files, or uint8 arrays of 0 to 255: [H, W], [H, W, C], "
            "[N, H, W] or [N, H, W, C]"
        )
    if x.ndim == 3 and x.shape[-1] in (2, 4):
        raise UserError(
            f"images are {list(x.shape)}: one of {x.shape[-1]} channels, or several grey ones? Give [N, H, W, 1]"
        )
    if x.ndim == 2 or (x.ndim == 3 and x.shape[-1] not in (1, 3)):  # grey: one image, or several
        x = x[..., None]
    x = x[None] if x.ndim == 3 else x
    if x.shape[-1] not in (1, 3):
        raise UserError(f"images are {list(x.shape)}: the last axis holds channels, 1 or 3")
    return x


def _read_first(source: list[Any], skip_bad: bool) -> tuple[list[Any], tuple[str, ...]]:
    """What decodes, and why the rest does not, where those are to be left out."""
    if not skip_bad or not isinstance(source[0], str):
        return source, ()
    good, unread = [], []
    for path in source:
        try:
            im.read_file(path)
            good.append(path)
        except UserError as e:
            unread.append(str(e).partition("; remove it")[0])
    if not good:
        raise UserError(f"none of {len(source)} files decodes; the first: {unread[0]}")
    return good, tuple(unread)
