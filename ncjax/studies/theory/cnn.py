"""A small convolutional network, for toy models whose features come from images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

CHANNELS = (8, 16, 32)


def init(key: Any, side: int, width: int) -> list[tuple[Any, Any]]:
    """He's initialisation: three convolutions of 3 pixels and stride 2 on grey images, and a linear map to `width`."""
    flat = CHANNELS[-1] * (-(-side // 8)) ** 2
    shapes = [(3, 3, i, o) for i, o in itertools.pairwise((1, *CHANNELS))] + [(flat, width)]
    keys = jax.random.split(key, len(shapes))
    return [
        (jax.random.normal(k, s) * np.sqrt(2 / np.prod(s[:-1])), jnp.zeros(s[-1]))
        for k, s in zip(keys, shapes, strict=True)
    ]


def features(params: list[tuple[Any, Any]], x: Any) -> Any:
    """[N, width] of images [N, H, W, 1]: ReLU after every convolution, none at the end."""
    *convolutions, (last, bias) = params
    for kernel, b in convolutions:
        x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jnp.maximum(x + b, 0)
    return x.reshape(len(x), -1) @ last + bias


def fit(
    loss: Callable[[Any, Any], Any],
    params: Any,
    *,
    images: int,
    lr: float,
    steps: int,
    batch_size: int,
    seed: int,
    at: Sequence[int],
) -> list[Any]:
    """Parameters after given steps of Adam, its rate falling along a cosine, on batches drawn with replacement.

    Steps are taken one by one: gradients of convolutions within a loop on the device are slow on CPUs.

    Args:
      loss: of parameters and rows [B] of the images.
      params: at the start.
      images: how many there are.
      lr, steps, batch_size: of the training.
      seed: of the batches.
      at: after how many steps, of 1 to `steps`.
    """
    tx, rng = optax.adam(optax.cosine_decay_schedule(lr, steps)), np.random.default_rng(seed)

    @jax.jit
    def step(params: Any, opt: Any, rows: Any) -> tuple[Any, Any]:
        updates, opt = tx.update(jax.grad(loss)(params, rows), opt)
        return optax.apply_updates(params, updates), opt

    opt, found = tx.init(params), {}
    for taken in range(1, steps + 1):
        params, opt = step(params, opt, rng.integers(0, images, batch_size))
        if taken in at:
            found[taken] = params
    return [found[taken] for taken in at]
