"""A contract for every public loss, and oracles for each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import losses
from ncjax.core.errors import UserError
from ncjax.core.resolve import public_names
from ncjax.core.roles import LOSS, resolve
from ncjax.core.types import Batch, Loss
from ncjax.losses.attacks import pgd
from ncjax.losses.etf import _sparse_gradient, simplex_etf, sparse_etf
from ncjax.losses.parts import feature_entropy

LOSSES = [name for name in public_names(losses) if isinstance(getattr(losses, name)(), Loss)]


def features(rng, n=12, k=4, d=6):
    logits = jnp.asarray(rng.normal(size=(n, k)), jnp.float32)
    embedding, penultimate = (jnp.asarray(rng.normal(size=(n, d)), jnp.float32) for _ in range(2))
    return {"logits": logits, "detached_logits": logits, "embedding": embedding, "penultimate": penultimate}


def of_views(rows, views):
    """Rows of one view, as they are among the rows of all: views follow one another."""
    return np.concatenate([np.asarray(rows) + 12 // views * v for v in range(views)])


@pytest.mark.parametrize("name", LOSSES)
def test_masked_rows_count_for_nothing(name, rng, strict):
    loss, f = getattr(losses, name)(), features(rng)
    real = of_views(range(8 // loss.views), loss.views)
    filler = np.setdiff1d(np.arange(12), real)
    labels = jnp.asarray(rng.integers(0, 4, 12), jnp.int32)
    mask = jnp.zeros(12, jnp.float32).at[real].set(1)
    changed = {k: v.at[filler].set(1e3) for k, v in f.items()}
    other_labels = labels.at[filler].set(0)
    assert float(loss.value(f, labels, mask)) == pytest.approx(float(loss.value(changed, other_labels, mask)), rel=1e-6)
    kept = {k: v[real] for k, v in f.items()}
    assert float(loss.value(f, labels, mask)) == pytest.approx(float(loss.value(kept, labels[real], mask[real])), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_order_of_examples_does_not_matter(name, rng):
    loss, f = getattr(losses, name)(), features(rng)
    labels, mask = jnp.asarray(rng.integers(0, 4, 12), jnp.int32), jnp.ones(12)
    order = of_views(rng.permutation(12 // loss.views), loss.views)
    shuffled = {k: v[order] for k, v in f.items()}
    assert float(loss.value(f, labels, mask)) == pytest.approx(float(loss.value(shuffled, labels[order], mask)), rel=1e-5)


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


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_nt_xent_against_loops(rng):
    f, labels = features(rng), jnp.asarray(rng.integers(0, 4, 12), jnp.int32)
    z, total = unit(f["embedding"]), 0.0
    for i in range(12):
        partner = i + 6 if i < 6 else i - 6
        total -= np.log(np.exp(z[i] @ z[partner] / 0.3) / sum(np.exp(z[i] @ z[a] / 0.3) for a in range(12) if a != i))
    loss = losses.nt_xent(temperature=0.3)
    classifier = float(losses.cross_entropy().value(f, labels, jnp.ones(12)))
    assert loss.views == 2
    assert float(loss.value(f, labels, jnp.ones(12))) - classifier == pytest.approx(total / 12, rel=1e-5)
    assert float(loss.evaluate(f, labels, jnp.ones(12))) == pytest.approx(classifier, rel=1e-6)
    moved = jax.grad(lambda e: loss.value({**f, "embedding": e}, labels, jnp.ones(12)))(f["embedding"])
    other = jax.grad(lambda e: loss.value({**f, "embedding": e}, 3 - labels, jnp.ones(12)))(f["embedding"])
    assert np.array_equal(moved, other), "labels play no part for the backbone"


def test_a_simplex_has_equal_angles_and_the_loss_is_cross_entropy_of_its_cosines(rng):
    etf = simplex_etf(4, 6)
    np.testing.assert_allclose(etf @ etf.T, np.eye(4) * 4 / 3 - 1 / 3, atol=1e-12)
    least = simplex_etf(5, 4)  # K - 1 features are enough
    np.testing.assert_allclose(least @ least.T, np.eye(5) * 5 / 4 - 1 / 4, atol=1e-12)
    with pytest.raises(UserError, match="5 classes needs 4 features"):
        simplex_etf(5, 3)
    f, labels = features(rng), rng.integers(0, 4, 12)
    z = 10 * unit(f["embedding"]) @ etf.T
    fixed = -(z - np.log(np.exp(z).sum(1, keepdims=True)))[np.arange(12), labels].mean()
    classifier = float(losses.cross_entropy().value(f, jnp.asarray(labels), jnp.ones(12)))
    value = float(losses.fixed_etf(scale=10.0).value(f, jnp.asarray(labels), jnp.ones(12)))
    assert value - classifier == pytest.approx(fixed, rel=1e-5)


def test_feature_entropy_is_the_mean_log_distance_to_the_nearest(rng):
    f = features(rng)
    z = unit(f["penultimate"])
    apart = np.linalg.norm(z[:, None] - z[None], axis=2) + 1e9 * np.eye(12)
    entropy = np.log(apart.min(1)).mean()
    assert float(feature_entropy(f["penultimate"], jnp.ones(12))) == pytest.approx(entropy, rel=1e-4)
    labels = jnp.asarray(rng.integers(0, 4, 12), jnp.int32)
    plain, kept = (
        loss.value(f, labels, jnp.ones(12)) for loss in (losses.cross_entropy(), losses.entropy_regularised(0.5))
    )
    assert float(kept - plain) == pytest.approx(-0.5 * entropy, rel=1e-4)


def a_batch(rng, scale=0.02, shift=1.1):
    pixels = rng.integers(0, 256, (6, 4, 4, 1)).astype(np.float32)
    ends = [np.full((6, 1, 1, 1), x * scale - shift, np.float32) for x in (0, 255)]
    return pixels, Batch(jnp.asarray(pixels * scale - shift), jnp.zeros(6, jnp.int32), jnp.ones(6), *map(jnp.asarray, ends))


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_an_attack_on_a_linear_model_is_the_sign_of_its_weights(rng, steps):
    pixels, batch = a_batch(rng)
    weight = rng.normal(size=(4, 4, 1)).astype(np.float32)
    out = pgd(lambda x: jnp.sum(x * weight), batch, jax.random.key(0), epsilon=8.0, steps=steps)
    found = (np.asarray(out) + 1.1) / 0.02
    wanted = np.clip(pixels + 8 * np.sign(weight), 0, 255)
    if steps > 1:  # from anywhere in the ball, steps of 2.5 epsilon / steps reach every corner
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert (abs(found - pixels) <= 8 + 1e-3).all()
    assert (found >= -1e-3).all()
    assert (found <= 255 + 1e-3).all()


def test_an_adversarial_loss_of_radius_zero_is_the_loss_and_costs_nothing(rng):
    _, batch = a_batch(rng)
    assert pgd(lambda x: 1 / 0, batch, jax.random.key(0), epsilon=0, steps=3) is batch.image
    zero = losses.adversarial(epsilon=0.0)
    runs = []

    def apply(variables, images, train=True):
        runs.append(images)
        return {"logits": images.reshape(6, -1)[:, :4] * variables}

    value, _ = zero.value(apply, 2.0, batch, jax.random.key(0))
    assert len(runs) == 1
    assert float(value) == float(losses.cross_entropy().value(apply(2.0, batch.image), batch.label, batch.mask))
    attacked, _ = losses.adversarial(epsilon=8.0, steps=2).value(apply, 2.0, batch, jax.random.key(0))
    assert float(attacked) > float(value)
    with pytest.raises(UserError, match="activations"):
        losses.adversarial().value(apply, 2.0, batch._replace(black=None), jax.random.key(0))
    with pytest.raises(UserError, match="one view"):
        losses.adversarial(loss="losses.sup_con")


def test_a_step_does_not_differentiate_the_attack(rng):
    """Convolutions by oneDNN have a first derivative and no second."""

    @jax.custom_vjp
    def times(x, w):
        return x * w

    def outside(x):
        return jax.pure_callback(lambda x: np.asarray(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    times.defvjp(lambda x, w: (x * w, (x, w)), lambda kept, g: (outside(g * kept[1]), jnp.sum(outside(g * kept[0]))))
    _, batch = a_batch(rng)

    def apply(variables, images, train=True):
        return {"logits": times(images.reshape(6, -1)[:, :4], variables)}

    def value(variables):
        return losses.adversarial(epsilon=8.0, steps=2).value(apply, variables, batch, jax.random.key(0))[0]

    assert np.isfinite(float(jax.grad(value)(jnp.float32(2.0))))


def test_dot_regression_pulls_to_the_own_vertex_alone(rng):
    f, labels = features(rng), jnp.asarray(rng.integers(0, 4, 12), jnp.int32)
    etf = simplex_etf(4, 6)
    h = np.asarray(f["embedding"], np.float64)
    cosines = (h / np.linalg.norm(h, axis=1, keepdims=True)) @ etf.T
    z = np.asarray(f["detached_logits"], np.float64)
    beside = (np.log(np.exp(z).sum(1)) - z[np.arange(12), labels]).mean()
    wanted = 3 * 0.5 * np.mean((cosines[np.arange(12), labels] - 1) ** 2)
    loss = losses.dot_regression(scale=3.0).value
    assert float(loss(f, labels, jnp.ones(12))) == pytest.approx(wanted + beside, rel=1e-5)
    at = {**f, "embedding": jnp.asarray(7 * etf[np.asarray(labels)], jnp.float32)}
    gradient = jax.grad(lambda e: loss({**at, "embedding": e}, labels, jnp.ones(12)))(at["embedding"])
    np.testing.assert_allclose(gradient, 0, atol=1e-6)  # at the vertices nothing moves, whatever the length


def test_balanced_softmax_is_cross_entropy_under_the_prior(rng):
    f, labels, mask = features(rng), jnp.asarray(rng.integers(0, 4, 12), jnp.int32), jnp.ones(12)
    z, counts = np.asarray(f["logits"], np.float64), np.array([500, 100, 20, 4])
    p = counts * np.exp(z)
    wanted = -np.log(p / p.sum(1, keepdims=True))[np.arange(12), labels].mean()
    loss, plain = losses.balanced_softmax(counts=counts.tolist()), losses.cross_entropy().value(f, labels, mask)
    assert float(loss.value(f, labels, mask)) == pytest.approx(wanted, rel=1e-5)
    assert loss.evaluate is not None
    assert float(loss.evaluate(f, labels, mask)) == pytest.approx(float(plain), rel=1e-6)
    even = losses.balanced_softmax(counts=[7.0] * 4).value(f, labels, mask)
    assert float(even) == pytest.approx(float(plain), rel=1e-5)
    with pytest.raises(UserError, match="3 counts for 4 classes"):
        losses.balanced_softmax(counts=[1.0, 2.0, 3.0]).value(f, labels, mask)
    named = resolve("losses.balanced_softmax(counts=[500,100,20,4])", LOSS)()
    assert float(named.value(f, labels, mask)) == pytest.approx(wanted, rel=1e-5)


def test_a_sparse_simplex_keeps_zeros_and_widens_angles(rng):
    k, d, share = 10, 64, 0.6
    found = sparse_etf(k, d, share)
    assert (found == 0).sum() == round(share * k * d)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-12)
    start = np.where(found != 0, simplex_etf(k, d), 0)
    start /= np.linalg.norm(start, axis=1, keepdims=True)

    def nearest(m):
        return np.arccos(np.clip((m @ m.T - 2 * np.eye(k)).max(1), -1, 1)).mean()

    best = np.arccos(-1 / (k - 1))
    assert nearest(start) < nearest(found) <= best + 1e-3
    assert nearest(found) > 0.99 * best  # 25 free entries a class are enough for nearly the simplex's angles
    for sizes, words in (((4, 3, 0.9), "keeps none"), ((5, 5, 0.6), "point apart")):
        with pytest.raises(UserError, match=words):
            sparse_etf(*sizes)
    m = rng.normal(size=(5, 7))

    def objective(m):
        u = m / np.linalg.norm(m, axis=1, keepdims=True)
        nearest = np.max(u @ u.T - 2 * np.eye(5), axis=1)
        return np.sum((np.linalg.norm(m, axis=1) - 1) ** 2) - np.mean(np.arccos(nearest))

    gradient = _sparse_gradient(m)
    for at in np.ndindex(*m.shape):
        step = np.zeros_like(m)
        step[at] = 1e-6
        assert gradient[at] == pytest.approx((objective(m + step) - objective(m - step)) / 2e-6, abs=1e-6)
    f, labels = features(rng), rng.integers(0, 4, 12)
    h = np.asarray(f["embedding"], np.float64)
    z = 10 * (h / np.linalg.norm(h, axis=1, keepdims=True)) @ sparse_etf(4, 6, 0.25).T
    fixed = (np.log(np.exp(z).sum(1)) - z[np.arange(12), labels]).mean()
    z = np.asarray(f["detached_logits"], np.float64)
    beside = (np.log(np.exp(z).sum(1)) - z[np.arange(12), labels]).mean()
    loss = jax.jit(losses.fixed_etf(sparsity=0.25).value)  # the vectors are found while it is traced
    assert float(loss(f, jnp.asarray(labels), jnp.ones(12))) == pytest.approx(fixed + beside, rel=1e-5)
