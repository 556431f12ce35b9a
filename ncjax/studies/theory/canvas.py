"""Images with one label or two, made of images with one."""

from __future__ import annotations

import itertools

import numpy as np

CANVAS = 24  # pixels; two images of 14 overlap in its middle


def canvases(images: np.ndarray, labels: np.ndarray, singles: int, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(pixels [N, 24 * 24], tags [N, K]): so many of each class alone, then so many of each pair of classes.

    Args:
      images: [M, 28, 28], of one label each; the least value is the background's.
      labels: [M].
      singles, pairs: of each class, of each pair.
      seed: of which images, in which corners.
    """
    rng, k = np.random.default_rng(seed), int(labels.max()) + 1
    small = images.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    of_class = [np.flatnonzero(labels == c) for c in range(k)]
    sets = [(c,) for c in range(k) for _ in range(singles)]
    sets += [pair for pair in itertools.combinations(range(k), 2) for _ in range(pairs)]
    x, tags = np.full((len(sets), CANVAS, CANVAS), images.min(), np.float32), np.zeros((len(sets), k), np.float32)
    corner = (slice(None, 14), slice(-14, None))
    for i, chosen in enumerate(sets):
        row, column = rng.integers(0, 2, 2)
        for j, c in enumerate(chosen):
            at = (i, corner[row ^ j], corner[column ^ j])
            x[at] = np.maximum(x[at], small[rng.choice(of_class[c])])
        tags[i, list(chosen)] = 1
    return x.reshape(len(x), -1), tags


def iou(logits: np.ndarray, tags: np.ndarray) -> float:
    """Mean intersection over union of an image's |S| labels S with the |S| of largest logits: how many it has is known."""
    count = tags.sum(1).astype(int)
    rank = np.argsort(np.argsort(-logits, axis=1), axis=1)
    hits = (tags * (rank < count[:, None])).sum(1)
    return float(np.mean(hits / (2 * count - hits)))
