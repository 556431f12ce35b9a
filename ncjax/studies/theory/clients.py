"""Clients of federated training: which images each one has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ncjax.core.errors import UserError
from ncjax.studies.theory import mlp

TRIES = 1000


class Clients(NamedTuple):
    """Images of a seed's clients."""

    rows: np.ndarray  # [clients, N], each one's over and over
    sizes: np.ndarray  # [clients]
    labels: np.ndarray  # of all images, classes renumbered so that sizes fall
    counts: np.ndarray  # [clients, K]
    renamed: np.ndarray  # [K], new labels by old


def deal(y: np.ndarray, clients: int, alpha: float, ratio: float, seed: int) -> Clients:
    """Images for clients, class sizes falling geometrically to `ratio` of the largest, which is the smallest there is.

    Args:
      y: labels.
      clients: how many.
      alpha: of the Dirichlet shares.
      ratio: smallest class over largest; 1 for classes of one size.
      seed: of the order of classes, and of the shares.

    Raises:
      UserError: as for `shares`.
    """
    rng, k = np.random.default_rng(seed), int(y.max()) + 1
    largest = np.bincount(y).min()
    chosen, renamed = mlp.cut(y, [max(round(largest * ratio ** (c / (k - 1))), 2) for c in range(k)], rng)
    labels = renamed[y]
    found = [chosen[rows] for rows in shares(labels[chosen], clients, alpha, rng)]
    counts = np.stack([np.bincount(labels[rows], minlength=k) for rows in found]).astype(np.float32)
    rows = np.stack([np.resize(rows, len(chosen)) for rows in found])
    return Clients(rows, np.array([len(rows) for rows in found]), labels, counts, renamed)


def shares(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows of each client, two at least: every class is divided by shares from a symmetric Dirichlet.

    Raises:
      UserError: in a thousand draws somebody always has fewer.
    """
    for _ in range(TRIES):
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for c in range(labels.max() + 1):
            rows = rng.permutation(np.flatnonzero(labels == c))
            cuts = np.cumsum(rng.dirichlet([alpha] * clients))[:-1] * len(rows)
            for part, some in zip(parts, np.split(rows, cuts.round().astype(int)), strict=True):
                part.append(some)
        found = [np.concatenate(part) for part in parts]
        if min(map(len, found)) > 1:
            return found
    raise UserError(
        f"{clients} clients, Dirichlet shares of {alpha:g}, {len(labels)} images: in {TRIES} draws some client always has "
        "fewer than two; take fewer clients, or a larger alpha"
    )
