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


def test_jitter_is_brightness_contrast_and_saturation_in_that_order(rng):
    key = jax.random.key(5)
    for channels in (1, 3):
        x = np.asarray(rng.integers(0, 256, (5, 6, 6, channels)), np.uint8)
        got = np.asarray(augment.color_jitter(key, jnp.asarray(x), strength=1.5))
        grey = np.array([0.299, 0.587, 0.114]) if channels == 3 else np.ones(1)
        for i in range(5):
            b, c, s = (
                float(jax.random.uniform(k, (), jnp.float32, 1 - 0.6, 1 + 0.6))
                for k in jax.random.split(jax.random.fold_in(key, i), 3)
            )
            y = np.clip(b * x[i].astype(float), 0, 255)
            y = np.clip(c * y + (1 - c) * (y @ grey).mean(), 0, 255)
            y = np.clip(s * y + (1 - s) * (y @ grey)[..., None], 0, 255) if channels == 3 else y
            np.testing.assert_allclose(got[i], y, atol=1e-3)


def test_erasing_blackens_one_rectangle_of_the_area_it_should(rng):
    x = jnp.asarray(rng.integers(1, 256, (200, 20, 20, 1)), jnp.uint8)
    out = np.asarray(augment.erase(jax.random.key(2), x, strength=1.0))
    gone, shares = out != np.asarray(x), []
    for hole, image in zip(gone[..., 0], out, strict=True):
        if hole.any():
            rows, cols = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
            assert hole[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].all()
            assert (image[hole] == 0).all()
            shares.append(hole.mean())
    assert 0.4 < len(shares) / 200 < 0.6  # probability s / 2
    assert max(shares) <= 0.27
    assert min(shares) >= 0.01
    assert max(shares) - min(shares) > 0.15


def test_parts_of_strength_zero_change_nothing_and_rows_draw_alone(rng):
    x = jnp.asarray(rng.integers(0, 256, (6, 8, 8, 3)), jnp.uint8)
    for function in (augment.color_jitter, augment.erase, augment.strong):
        assert function(jax.random.key(0), x, strength=0) is x
        whole, part = (function(jax.random.key(1), rows, strength=1.0) for rows in (x, x[:4]))
        assert (whole[:4] == part).all()
