"""Class by class: how collapsed, how accurate, what is taken for what, and the surest of the mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ncjax.core.files import in_place_of
from ncjax.core.types import Array, Model, PyTree
from ncjax.data import Dataset
from ncjax.data.batches import Batches
from ncjax.data.images import take
from ncjax.features.passes import Evaluation, collapse
from ncjax.features.picture import flat, rows_of

MATRIX = 100  # classes up to which the whole confusion matrix is kept
MISTAKES, SIDE = 12, 96  # shown, and pixels of each
PICTURES = "mistakes.png"  # in a run's folder: the images, side by side
SAID, SURE = "said", "sure"


def tally(labels: np.ndarray, said: np.ndarray, classes: int, nc1: Any) -> dict[str, Any]:
    """What is said of each class of a split.

    Args:
      labels, said: [N] the class of every image, and what a classifier says.
      classes: K.
      nc1: NC1 of each class [K], or None.

    Returns:
      "counts" [K]; "accuracy" [K], None for classes without images; "mean_accuracy" over classes (balanced accuracy);
      "nc1" [K], (1/K) tr(Sigma_k S_B^+), whose mean weighted by counts is NC1; "taken_for" [K], the class that each is most
      often taken for and how often, [said, count], None for never; up to 100 classes "confusion" [K, K], counts of
      (true, said).
    """
    counts, hits = (np.bincount(x, minlength=classes) for x in (labels, labels[said == labels]))
    accuracy = np.divide(hits, counts, out=np.full(classes, np.nan), where=counts > 0)
    found: dict[str, Any] = {
        "counts": counts.tolist(),
        "accuracy": _plain(accuracy),
        "mean_accuracy": float(np.nanmean(accuracy)),
        "nc1": None if nc1 is None else _plain(np.asarray(nc1)),
    }
    pairs, many = np.unique(labels.astype(np.int64) * classes + said, return_counts=True)
    taken: list[list[int] | None] = [None] * classes
    for pair, count in zip(pairs.tolist(), many.tolist(), strict=True):
        true, other = divmod(pair, classes)
        if true != other and (taken[true] is None or count > taken[true][1]):  # pyright: ignore[reportOptionalSubscript]
            taken[true] = [other, count]
    found["taken_for"] = taken
    if classes <= MATRIX:
        matrix = np.zeros(classes * classes, np.int64)
        matrix[pairs] = many
        found["confusion"] = matrix.reshape(classes, classes).tolist()
    return found


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(x) if np.isfinite(x) else None for x in values]


def saying(model: Model) -> Model:
    """The model with two more features: the class that it says, "said" [N, 1], and its probability, "sure" [N, 1]."""

    def apply(*args: Any, **options: Any) -> tuple[dict[str, Array], PyTree]:
        features, variables = model.apply(*args, **options)
        if "logits" in features:
            p = jax.nn.softmax(features["logits"].astype(jnp.float32), axis=-1)
            said = jnp.argmax(features["logits"], axis=-1).astype(jnp.float32)  # exact up to 2^24 classes
            features = {**features, SAID: said[:, None], SURE: p.max(axis=-1)[:, None]}
        return features, variables

    return model._replace(apply=apply)


def mistakes(seen: Evaluation) -> list[dict[str, Any]]:
    """The errors with the highest probability: "row" of the split, classes "is" and "said", "probability"."""
    said, sure = (seen.features[name][:, 0] for name in (SAID, SURE))
    wrong = np.flatnonzero(said != seen.labels)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES]
    return [{"row": int(i), "is": int(seen.labels[i]), "said": int(said[i]), "probability": float(sure[i])} for i in order]


def keep_pictures(dataset: Dataset, rows: list[int], folder: Path) -> None:
    """Writes those test images, where they are grey or RGB, side by side, 96 pixels each, into `mistakes.png`."""
    path, images = folder / PICTURES, take(dataset.splits["test"].images, np.asarray(rows, int)) if rows else None
    if images is None or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
        path.unlink(missing_ok=True)
        return
    strip = Image.new("RGB", (SIDE * len(rows), SIDE))
    for i, pixels in enumerate(images):
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
        how = Image.Resampling.NEAREST if max(picture.size) < SIDE else Image.Resampling.BILINEAR
        strip.paste(picture.resize((SIDE, SIDE), how), (SIDE * i, 0))
    with in_place_of(path) as part:
        strip.save(part, format="png")


def describe(
    look: Callable[[PyTree, Batches], Evaluation],
    start: PyTree,
    end: PyTree,
    batches: dict[str, Batches],
    dataset: Dataset,
    layer: str,
    folder: Path | None,
) -> dict[str, Any]:
    """What is kept of a trained network's classes.

    Args:
      look: a pass of `saying(model)` that keeps the statistics and features of `layer`, "said" and "sure".
      start, end: the variables before and after training.
      batches: of each split.
      dataset: names and images.
      layer: where NC1 is measured.
      folder: where the pictures go; None for nowhere.

    Returns:
      "class_names"; "by_class" of train and test, from `tally`; the "mistakes" on test and where their "pictures" are;
      "plane": test features before and after, from `picture.flat`, with their labels.
    """
    before, train, test = look(start, batches["test"]), look(end, batches["train"]), look(end, batches["test"])
    wrong, rows = mistakes(test), rows_of(len(test.labels))
    if folder is not None:
        keep_pictures(dataset, [m["row"] for m in wrong], folder)

    def classes(seen: Evaluation) -> dict[str, Any]:
        kept = seen._replace(stats={layer: seen.stats[layer]})
        nc1 = collapse(kept, train)[layer].nc1_classes
        return tally(seen.labels, seen.features[SAID][:, 0].astype(np.int64), len(dataset.class_names), nc1)

    return {
        "class_names": list(dataset.class_names),
        "by_class": {"by": "classifier", "train": classes(train), "test": classes(test)},
        "mistakes": wrong,
        "pictures": {"file": PICTURES, "side": SIDE},
        "plane": {
            "labels": test.labels[rows].tolist(),
            "before": flat(before.features[layer][rows]),
            "after": flat(test.features[layer][rows]),
        },
    }
