"""Augmentation on the device: pure functions of a key and a batch [B, H, W, C] of raw pixels (any dtype)."""

from __future__ import annotations

import functools
import math
from typing import Annotated

import jax
import jax.numpy as jnp

from ncjax.core.types import Array
from ncjax.core.values import Range

STRENGTH = Range("from 0 to 8, where the padding is as wide as the image", 0, 8)
JITTER = Range("from 0 to 2.5, where a factor may be 0", 0, 2.5)
ERASING = Range("from 0 to 2, where half of an image may go", 0, 2)
GREY = (0.299, 0.587, 0.114)  # luma of red, green and blue (ITU-R BT.601)


def _keys(key: Array, rows: int, count: int) -> Array:
    """[rows, count] keys: every row draws from its own, so that filler rows change nothing for the others."""
    return jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), count))(jnp.arange(rows))


def _uniform(keys: Array, low: float, high: float) -> Array:
    """[B, 1, 1, 1] a number a row."""
    return jax.vmap(lambda k: jax.random.uniform(k, (), jnp.float32, low, high))(keys)[:, None, None, None]


def crop_flip(key: Array, images: Array, *, strength: Annotated[float, STRENGTH] = 1.0, flip: bool = True) -> Array:
    """Random crop after padding with black by round(strength * H / 8) pixels, then a horizontal flip with probability 1/2.

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
    keys = _keys(key, batch, 2)
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


def color_jitter(key: Array, images: Array, *, strength: Annotated[float, JITTER] = 1.0) -> Array:
    """Brightness, contrast and, in colour, saturation, each times a factor from 1 - 0.4 s to 1 + 0.4 s, in that order.

    x <- b x;  x <- c x + (1 - c) mean grey of the image;  x <- a x + (1 - a) grey of the pixel; clipped to 0..255 after
    each (the first three of torchvision's ColorJitter). float32 comes out; strength 0 returns the images unchanged.

    Args:
      key: PRNG key.
      images: [B, H, W, C], C 1 or 3.
      strength: s; a Python number, fixed at compile time.
    """
    if strength <= 0:
        return images
    keys, x = _keys(key, len(images), 3), images.astype(jnp.float32)
    factor = [_uniform(keys[:, i], 1 - 0.4 * strength, 1 + 0.4 * strength) for i in range(3)]
    weights = jnp.asarray(GREY if x.shape[-1] == 3 else [1 / x.shape[-1]] * x.shape[-1], jnp.float32)

    def grey(x: Array) -> Array:
        return jnp.sum(x * weights, axis=-1, keepdims=True)

    x = jnp.clip(factor[0] * x, 0, 255)
    x = jnp.clip(factor[1] * x + (1 - factor[1]) * jnp.mean(grey(x), axis=(1, 2), keepdims=True), 0, 255)
    return jnp.clip(factor[2] * x + (1 - factor[2]) * grey(x), 0, 255) if x.shape[-1] == 3 else x


def erase(key: Array, images: Array, *, strength: Annotated[float, ERASING] = 1.0) -> Array:
    """Random erasing (Zhong et al., 2020): with probability min(1, s / 2) a rectangle turns black.

    Its area is from 0.02 to 0.02 + 0.48 s / 2 of the image, its aspect from 0.3 to 1 / 0.3, evenly on a logarithm; sides
    are cut to the image's. Strength 0 returns the images unchanged.

    Args:
      key: PRNG key.
      images: [B, H, W, C].
      strength: s; a Python number, fixed at compile time.
    """
    if strength <= 0:
        return images
    batch, height, width, _ = images.shape
    keys = _keys(key, batch, 5)
    area = _uniform(keys[:, 0], 0.02, 0.02 + 0.24 * strength) * height * width
    aspect = jnp.exp(_uniform(keys[:, 1], math.log(0.3), -math.log(0.3)))
    tall, wide = (jnp.round(jnp.sqrt(x)) for x in (area * aspect, area / aspect))
    tall, wide = jnp.clip(tall, 1, height), jnp.clip(wide, 1, width)
    top = jnp.floor(_uniform(keys[:, 2], 0, 1) * (height - tall + 1))
    left = jnp.floor(_uniform(keys[:, 3], 0, 1) * (width - wide + 1))
    rows, cols = jnp.arange(height)[None, :, None, None], jnp.arange(width)[None, None, :, None]
    inside = (rows >= top) & (rows < top + tall) & (cols >= left) & (cols < left + wide)
    chosen = _uniform(keys[:, 4], 0, 1) < min(1.0, strength / 2)
    return jnp.where(inside & chosen, jnp.zeros((), images.dtype), images)


def strong(key: Array, images: Array, *, strength: Annotated[float, ERASING] = 1.0, flip: bool = True) -> Array:
    """`crop_flip`, `color_jitter` and `erase`, one after another, all of one strength; 0 returns the images unchanged.

    Args:
      key: PRNG key.
      images: [B, H, W, C].
      strength: of all three.
      flip: as for `crop_flip`; with strength 0 there is no flip either.
    """
    for i, part in enumerate((functools.partial(crop_flip, flip=flip), color_jitter, erase)):
        images = part(jax.random.fold_in(key, i), images, strength=strength)
    return images
