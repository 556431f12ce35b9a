"""Classes that come by parts: which images a session trains on."""

from __future__ import annotations

import numpy as np

from ncjax.core.errors import UserError


def parts(y: np.ndarray, sessions: int, exemplars: int, per_class: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows [seeds, sessions, R] of images, classes seen so far [seeds, sessions, K]), the order of classes a seed's.

    Args:
      y: labels of all images.
      sessions: equal parts of the classes.
      exemplars: of each earlier class, replayed.
      per_class: images of each new class.
      seeds: that many.

    Raises:
      UserError: classes do not fall into as many equal parts.
    """
    k = int(y.max()) + 1
    if k % sessions:
        raise UserError(f"sessions={sessions}: {k} classes do not fall into as many equal parts")
    part, orders = k // sessions, [np.random.default_rng(s).permutation(k) for s in range(seeds)]
    plans = [[_rows(y, order, i, part, exemplars, per_class, s) for i in range(sessions)] for s, order in enumerate(orders)]
    seen = [[np.isin(np.arange(k), o[: (i + 1) * part]) for i in range(sessions)] for o in orders]
    return np.stack([np.stack(plan) for plan in plans]), np.stack(seen)


def _rows(y: np.ndarray, order: np.ndarray, i: int, part: int, exemplars: int, per_class: int, seed: int) -> np.ndarray:
    """Rows of a session: its classes' images and exemplars of earlier ones, repeated to one length for all sessions."""
    rng = np.random.default_rng([seed, i])
    new = [np.flatnonzero(y == c) for c in order[i * part : (i + 1) * part]]
    replayed = [np.random.default_rng([seed, c]).permutation(np.flatnonzero(y == c))[:exemplars] for c in order[: i * part]]
    return np.resize(rng.permutation(np.concatenate([*new, *replayed])), part * per_class + len(order) * exemplars)
