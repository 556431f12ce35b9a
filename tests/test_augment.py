"""Crop and flip: what can come out, and what cannot change."""

import jax
import jax.numpy as jnp
import numpy as np

from ncjax import augment


def test_zero_strength_is_the_identity(rng):
    x = jnp.asarray(rng.integers(0, 255, (4, 8, 8, 3)), jnp.uint8)
    assert (augment.crop_flip(jax.random.key(0), x, strength=0) == x).all()


def test_every_result_is_a_shifted_perhaps_mirrored_image(rng):
    x = np.asarray(rng.integers(1, 255, (16, 8, 8, 1)), np.uint8)
    out = np.asarray(augment.crop_flip(jax.random.key(3), jnp.asarray(x), strength=1.0))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kinds = set()
    for original, got in zip(padded, out, strict=True):
        candidates = {
            (i, j, flip): original[i : i + 8, j : j + 8][:, :: -1 if flip else 1]
            for i in range(3)
            for j in range(3)
            for flip in (0, 1)
        }
        hits = [k for k, c in candidates.items() if np.array_equal(c, got)]
        assert hits
        kinds.add(hits[0])
    assert len(kinds) > 4


def test_filler_rows_do_not_change_the_others(rng):
    x = jnp.asarray(rng.integers(0, 255, (6, 8, 8, 1)), jnp.uint8)
    padded = jnp.concatenate([x, x[:2]])
    key = jax.random.key(1)
    assert (augment.crop_flip(key, x, strength=1.0) == augment.crop_flip(key, padded, strength=1.0)[:6]).all()
