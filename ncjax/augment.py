"""Augmentation on the device: pure functions of a key and a batch [B, H, W, C] of raw pixels (any dtype)."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from ncjax.core.types import Array
from ncjax.core.values import Range

STRENGTH = Range("from 0 to 8, where the padding is as wide as the image", 0, 8)


def crop_flip(key: Array, images: Array, *, strength: Annotated[float, STRENGTH] = 1.0, flip: bool = True) -> Array:
    """Random crop after padding with black by round(strength * H / 8) pixels, then a horizontal flip with probability 1/2.

    Every row draws from its own key, so the result does not depend on how many filler rows a batch carries.
    Strength 1 on 32x32 images is the usual "pad 4, crop, flip"; strength 0 returns the images unchanged.

    Args:
      key: PRNG key.
      images: [B, H, W, C].
      strength: at least 0; a Python number, fixed at compile time.
      flip: False for images whose mirror image means something else (digits, letters).
    """
    if strength <= 0:
        return images
    batch, height, width, _ = images.shape
    pad = round(strength * height / 8)
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(jnp.arange(batch))  # [B, 2] keys
    if pad:
        offsets = jax.vmap(lambda k: jax.random.randint(k, (2,), 0, 2 * pad + 1))(keys[:, 0])
        padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        rows = offsets[:, 0, None] + jnp.arange(height)  # [B, H]
        cols = offsets[:, 1, None] + jnp.arange(width)  # [B, W]
        images = padded[jnp.arange(batch)[:, None, None], rows[:, :, None], cols[:, None, :]]
    if flip:
        mirrored = jax.vmap(jax.random.bernoulli)(keys[:, 1])
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    return images
