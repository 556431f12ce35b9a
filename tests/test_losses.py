"""A contract for every public loss, and oracles for each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import losses
from ncjax.core.resolve import public_names

LOSSES = public_names(losses)


def features(rng, n=12, k=4, d=6):
    logits = jnp.asarray(rng.normal(size=(n, k)), jnp.float32)
    return {"logits": logits, "detached_logits": logits, "embedding": jnp.asarray(rng.normal(size=(n, d)), jnp.float32)}


@pytest.mark.parametrize("name", LOSSES)
def test_masked_rows_count_for_nothing(name, rng, strict):
    loss, f = getattr(losses, name)().value, features(rng)
    labels = jnp.asarray(rng.integers(0, 4, 12), jnp.int32)
    mask = jnp.asarray(np.r_[np.ones(9), np.zeros(3)], jnp.float32)
    changed = {k: v.at[9:].set(1e3) for k, v in f.items()}
    other_labels = labels.at[9:].set(0)
    assert float(loss(f, labels, mask)) == pytest.approx(float(loss(changed, other_labels, mask)), rel=1e-6)
    kept = {k: v[:9] for k, v in f.items()}
    assert float(loss(f, labels, mask)) == pytest.approx(float(loss(kept, labels[:9], mask[:9])), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_order_of_examples_does_not_matter(name, rng):
    loss, f = getattr(losses, name)().value, features(rng)
    labels, mask = jnp.asarray(rng.integers(0, 4, 12), jnp.int32), jnp.ones(12)
    order = rng.permutation(12)
    shuffled = {k: v[order] for k, v in f.items()}
    assert float(loss(f, labels, mask)) == pytest.approx(float(loss(shuffled, labels[order], mask)), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_finite_and_matches_differences(name, rng):
    loss, f = getattr(losses, name)().value, features(rng)
    labels, mask = jnp.asarray(rng.integers(0, 4, 12), jnp.int32), jnp.ones(12)
    with jax.enable_x64(True):
        f = {k: jnp.asarray(np.asarray(v), jnp.float64) for k, v in f.items()}
        gradient = jax.grad(loss)(f, labels, mask)
        for key, g in gradient.items():
            assert bool(jnp.all(jnp.isfinite(g)))
            direction = jnp.asarray(rng.normal(size=g.shape))
            ends = [float(loss({**f, key: f[key] + s * 1e-5 * direction}, labels, mask)) for s in (1, -1)]
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(jnp.sum(g * direction)), rel=1e-4, abs=1e-7)


def test_oracles(rng):
    f, labels, mask = features(rng), jnp.asarray(rng.integers(0, 4, 12), jnp.int32), jnp.ones(12)
    z = np.asarray(f["logits"], np.float64)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    own = log_p[np.arange(12), labels]
    onehot = np.eye(4)[np.asarray(labels)]

    def check(loss, expected):
        assert float(loss.value(f, labels, mask)) == pytest.approx(expected, rel=1e-5)

    check(losses.cross_entropy(), -own.mean())
    check(losses.focal(gamma=0.0), -own.mean())
    check(losses.focal(gamma=2.0), -((1 - np.exp(own)) ** 2 * own).mean())
    check(losses.mse(scale=15.0), np.square(z - 15 * onehot).mean())
    smooth = 0.9 * onehot + 0.1 / 4
    check(losses.label_smoothing(smoothing=0.1), -(smooth * log_p).sum(1).mean())


def test_sup_con_against_loops(rng):
    f, labels = features(rng, n=8, k=3), np.array([0, 0, 1, 1, 1, 2, 2, 2])
    z = np.asarray(f["embedding"], np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    total = 0.0
    for i in range(8):
        denominator = sum(np.exp(z[i] @ z[a] / 0.1) for a in range(8) if a != i)
        positives = [p for p in range(8) if p != i and labels[p] == labels[i]]
        total -= sum(np.log(np.exp(z[i] @ z[p] / 0.1) / denominator) for p in positives) / len(positives)
    classifier = float(losses.cross_entropy().value(f, jnp.asarray(labels), jnp.ones(8)))
    assert losses.sup_con().views == 2
    value = float(losses.sup_con(temperature=0.1).value(f, jnp.asarray(labels), jnp.ones(8)))
    assert value - classifier == pytest.approx(total / 8, rel=1e-4)


def test_a_confident_focal_loss_has_a_finite_gradient():
    f = {"logits": jnp.array([[200.0, 0.0]])}
    gradient = jax.grad(losses.focal().value)(f, jnp.array([0]), jnp.ones(1))["logits"]
    assert bool(jnp.all(jnp.isfinite(gradient)))
