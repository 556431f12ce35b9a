"""A multilayer perceptron on flattened images, for toy models that need a real network."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.data import Data, load


def images(data: str, split: str, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """(pixels [N, D] of mean 0 and variance 1, labels [N]), at most so many images of a class."""
    found = load(Data(data, val_fraction=0.0, n_per_class=per_class)).splits
    mean, std = (f(np.asarray(found["train"].images, np.float32)) for f in (np.mean, np.std))
    x = (np.asarray(found[split].images, np.float32) - mean) / std
    return x.reshape(len(x), -1), np.asarray(found[split].labels)


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
