"""Class by class: how collapsed, how accurate, what is taken for what, and the surest of the mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ncjax.core.files import in_place_of
from ncjax.core.types import PyTree
from ncjax.data import Dataset
from ncjax.data.batches import Batches
from ncjax.data.images import take
from ncjax.features.passes import Evaluation, collapse
from ncjax.features.picture import flat, rows_of

MATRIX = 100  # classes up to which the whole confusion matrix is kept
PAIRS = 30  # of classes most often taken for one another, where it is not
MISTAKES, SIDE = 12, 96  # shown, and pixels of each
PICTURES = "mistakes.png"  # in a run's folder: the images, side by side
LOGITS = "logits"


def tally(labels: np.ndarray, said: np.ndarray, classes: int, nc1: Any) -> dict[str, Any]:
    """What is said of each class of a split.

    Args:
      labels, said: [N] the class of every image, and what a classifier says.
      classes: K.
      nc1: NC1 of each class [K], or None.

    Returns:
      "counts" [K]; "accuracy" [K], None for classes without images; "mean_accuracy" over classes (balanced accuracy);
      "nc1" [K], (1/K) tr(Sigma_k S_B^+), whose mean weighted by counts is NC1; "confusion" [K, K], counts of (true, said);
      beyond 100 classes "confused", the likeliest [true, said, count].
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
    if classes <= MATRIX:
        matrix = np.zeros(classes * classes, np.int64)
        matrix[pairs] = many
        return {**found, "confusion": matrix.reshape(classes, classes).tolist()}
    true, taken = np.divmod(pairs, classes)
    order = [i for i in np.argsort(-many, kind="stable") if true[i] != taken[i]][:PAIRS]
    return {**found, "confused": [[int(true[i]), int(taken[i]), int(many[i])] for i in order]}


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(x) if np.isfinite(x) else None for x in values]


def mistakes(seen: Evaluation) -> list[dict[str, Any]]:
    """The errors with the highest probability: "row" of the split, classes "is" and "said", "probability"."""
    logits = seen.features[LOGITS].astype(np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    sure, said = p.max(axis=1) / p.sum(axis=1), logits.argmax(axis=1)
    wrong = np.flatnonzero(said != seen.labels)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES]
    return [{"row": int(i), "is": int(seen.labels[i]), "said": int(said[i]), "probability": float(sure[i])} for i in order]


def keep_pictures(dataset: Dataset, rows: list[int], folder: Path) -> None:
    """Writes those test images side by side, 96 pixels each, into `mistakes.png`."""
    path = folder / PICTURES
    if not rows:
        path.unlink(missing_ok=True)
        return
    strip = Image.new("RGB", (SIDE * len(rows), SIDE))
    for i, pixels in enumerate(take(dataset.splits["test"].images, np.asarray(rows))):
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
      look: a pass that keeps the statistics and features of `layer`, and the logits [N, K].
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
        logits, kept = seen.features[LOGITS], seen._replace(stats={layer: seen.stats[layer]})
        nc1 = collapse(kept, train)[layer].nc1_classes
        return tally(seen.labels, logits.argmax(axis=1), logits.shape[1], nc1)

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
