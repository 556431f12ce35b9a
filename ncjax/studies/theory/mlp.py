"""A multilayer perceptron on flattened images, for toy models that need a real network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncjax.core.errors import UserError
from ncjax.data import Data, load


def images(data: str, split: str, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """(pixels [N, D] of mean 0 and variance 1, labels [N]), at most so many images of a class."""
    x, labels = _normalised(data, split, per_class)
    return x.reshape(len(x), -1), labels


def grey(data: str, split: str, per_class: int, side: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The same as [N, S, S], of square grey images.

    Args:
      data, split, per_class: as for `images`.
      side: S, where no other will do.

    Raises:
      UserError: other images, or classes of unequal size in training.
    """
    x, labels = _normalised(data, split, per_class)
    height, width, channels = x.shape[1:]
    if height != width or channels != 1 or side not in (None, height):
        wanted = "square grey images" if side is None else f"grey images of {side} x {side} pixels"
        raise UserError(f"data={data}: images of {height} x {width} x {channels}, expected {wanted}")
    counts = np.bincount(labels)
    if split == "train" and counts.min() < counts.max():
        raise UserError(
            f"data={data}: classes of {counts.min()} to {counts.max()} images; this model wants as many of each"
        )
    return x[..., 0], labels


def _normalised(data: str, split: str, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    found = load(Data(data, val_fraction=0.0, n_per_class=per_class)).splits
    mean, std = (f(np.asarray(found["train"].images, np.float32)) for f in (np.mean, np.std))
    return (np.asarray(found[split].images, np.float32) - mean) / std, np.asarray(found[split].labels)


def cut(y: np.ndarray, counts: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(rows [N] of images, new labels by old [K]): counts[i] images of the class that is i by its new label.

    Args:
      y: labels of all images.
      counts: images to keep; as many as there are where there are fewer.
      rng: of the new labels, and of which images.
    """
    order = rng.permutation(len(counts))
    rows = [rng.permutation(np.flatnonzero(y == old))[:n] for old, n in zip(order, counts, strict=True)]
    return np.concatenate(rows), np.argsort(order)


def init(key: Any, widths: list[int]) -> list[tuple[Any, Any]]:
    """He's initialisation of layers widths[0] -> widths[1] -> ..."""
    keys = jax.random.split(key, len(widths) - 1)
    shapes = itertools.pairwise(widths)
    return [(jax.random.normal(k, s) * np.sqrt(2 / s[0]), jnp.zeros(s[1])) for k, s in zip(keys, shapes, strict=True)]


def features(params: list[tuple[Any, Any]], x: Any) -> list[Any]:
    """What each layer gives, ReLU after all but the last."""
    out = []
    for i, (w, b) in enumerate(params):
        x = x @ w + b
        x = jnp.maximum(x, 0) if i < len(params) - 1 else x
        out.append(x)
    return out


def fit(
    loss: Callable[[Any, Any], Any],
    params: Any,
    key: Any,
    *,
    images: int,
    lr: float | optax.Schedule,
    steps: int,
    batch_size: int,
    parts: int = 1,
) -> list[Any]:
    """Parameters after each of so many equal parts of the training, by Adam on batches drawn with replacement.

    Args:
      loss: of parameters and rows [B] of the images.
      params: at the start.
      key: of the batches.
      images: how many there are.
      lr: learning rate, or a schedule of it.
      steps, batch_size: of the training.
      parts: of the training.
    """
    tx = optax.adam(lr)

    def step(state: Any, key: Any) -> tuple[Any, None]:
        params, opt = state
        updates, opt = tx.update(jax.grad(loss)(params, jax.random.randint(key, (batch_size,), 0, images)), opt)
        return (optax.apply_updates(params, updates), opt), None

    state, out, keys = (params, tx.init(params)), [], jax.random.split(key, steps)
    for own in np.array_split(np.arange(steps), parts):
        state, _ = jax.lax.scan(step, state, keys[own])
        out.append(state[0])
    return out
