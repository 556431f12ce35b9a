"""Features in two dimensions: principal components, and t-SNE, which keeps neighbourhoods and no distances."""

from __future__ import annotations

from typing import Any

import numpy as np

from ncjax.core.types import Array

SHOWN = 300  # examples at most
FEWEST = 20  # for t-SNE


def rows_of(count: int) -> np.ndarray:
    """The examples that are shown, a seeded draw in order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:SHOWN])


def flat(features: Array) -> dict[str, Any]:
    """Features [N, D] in the plane.

    Returns:
      "pca" [N, 2], the two directions of largest variance, and "share", what part of the variance they hold; "tsne" [N, 2]
      (van der Maaten & Hinton, 2008; scikit-learn's, begun at the components), None for fewer than 20 examples.
    """
    x = np.asarray(features, np.float64)
    centred = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    total = float(np.square(s).sum())
    plane = np.zeros((len(x), 2))
    plane[:, : min(2, u.shape[1])] = (u * s)[:, :2]
    found = {"pca": _rounded(plane), "share": float(np.square(s[:2]).sum() / total) if total else 0.0, "tsne": None}
    if len(x) >= FEWEST and total:
        from sklearn.manifold import TSNE  # takes a second to import

        scaled = (u * s)[:, :50] / np.sqrt(total / len(x))
        found["tsne"] = _rounded(
            TSNE(
                perplexity=min(30.0, len(x) / 4),
                init="pca" if scaled.shape[1] > 1 else "random",
                random_state=0,
                max_iter=500,
            ).fit_transform(scaled.astype(np.float32))
        )
    return found


def _rounded(x: np.ndarray) -> list[list[float]]:
    scale = np.abs(x).max() or 1.0
    return np.round(x / scale, 3).tolist()
