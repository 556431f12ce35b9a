"""Collapse metrics against plain float64 NumPy, closed forms, and invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncjax import nc
from ncjax.types import UserError


def sample(seed=0, k=5, n=20, d=12, spread=1.0, offset=0.0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(k, d))
    means *= 3 / np.linalg.norm(means, axis=1, keepdims=True)
    labels = np.repeat(np.arange(k), n)
    return (means[labels] + offset + spread * rng.normal(size=(k * n, d))).astype(np.float32), labels


def reference(h, y):
    """The definitions, as they are written, in float64."""
    h = np.asarray(h, np.float64)
    classes = [c for c in np.unique(y) if (y == c).sum() >= 2]
    k, means = len(classes), np.stack([h[y == c].mean(0) for c in classes])
    centred = means - means.mean(0)
    residual = np.concatenate([h[y == c] - h[y == c].mean(0) for c in classes])
    within, between = residual.T @ residual / len(residual), centred.T @ centred / k
    values, vectors = np.linalg.eigh(between)
    top = np.argsort(values)[::-1][: min(k - 1, h.shape[1])]
    inverse = (vectors[:, top] / values[top]) @ vectors[:, top].T
    variance = [np.square(h[y == c] - h[y == c].mean(0)).sum(1).mean() for c in classes]
    pairs = [(variance[i] + variance[j]) / (2 * np.square(means[i] - means[j]).sum())
             for i in range(k) for j in range(k) if i != j]
    gram = centred @ centred.T
    etf = (np.eye(k) - 1 / k) / np.sqrt(k - 1)
    norms = np.linalg.norm(centred, axis=1)
    cosines = (gram / np.outer(norms, norms))[~np.eye(k, dtype=bool)]
    return {
        "nc1": np.trace(within @ inverse) / k,
        "trace_ratio": np.trace(within) / np.trace(between),
        "cdnv": np.mean(pairs),
        "nc2": np.linalg.norm(gram / np.linalg.norm(gram) - etf),
        "equinorm": norms.std() / norms.mean(),
        "equiangularity": np.abs(cosines + 1 / (k - 1)).mean(),
        "class_separation": 1 - cosines.max(),
    }


@pytest.mark.parametrize("setting", [dict(), dict(d=3), dict(k=2), dict(k=40, n=5, d=64), dict(spread=0.05, offset=3.0)])
def test_metrics_equal_their_definitions(setting):
    h, y = sample(**setting)
    report = nc.measure(h, y)._asdict()
    for name, value in reference(h, y).items():
        assert report[name] == pytest.approx(value, rel=2e-4, abs=1e-6), name


def test_deep_collapse_is_measured_and_not_lost():
    h, y = sample(k=10, n=50, d=32, spread=1e-3, offset=3.0)
    assert nc.measure(h, y).nc1 == pytest.approx(reference(h, y)["nc1"], rel=1e-3)
    raw = np.mean(np.square(h), axis=0, dtype=np.float32) - np.square(h.mean(0))
    assert np.isfinite(raw).all()  # raw moments stay finite and wrong: nothing would warn


def test_absent_and_single_example_classes_are_left_out():
    h, y = sample(k=4)
    h, y = np.concatenate([h, h[:1] + 100]), np.concatenate([y, [6]])  # class 6 once, classes 4 and 5 never
    report = nc.measure(h, y)
    assert (report.num_classes, report.left_out) == (4, 3)
    assert report.nc1 == pytest.approx(nc.measure(*sample(k=4)).nc1, rel=1e-5)
    assert report.cdnv == pytest.approx(reference(h, y)["cdnv"], rel=1e-4)


def simplex(k, d):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(d, k)))[0]
    return ((np.eye(k) - 1 / k) @ basis.T * np.sqrt(k / (k - 1))).astype(np.float32)


def test_exact_simplex_is_zero_and_antipodal_pairs_are_not():
    means = simplex(4, 8)
    h, y = np.repeat(means, 3, axis=0), np.repeat(np.arange(4), 3)
    report = nc.measure(h, y, classifier=(means, np.zeros(4, np.float32)))
    for name in ("nc1", "cdnv", "nc2", "nc3", "nc3_papyan", "nc2_w", "equinorm", "equiangularity"):
        assert getattr(report, name) == pytest.approx(0, abs=2e-6), name
    assert report.nc4 == 1.0
    antipodal = np.zeros((4, 8), np.float32)
    antipodal[[0, 1, 2, 3], [0, 0, 1, 1]] = [1, -1, 1, -1]
    report = nc.measure(np.repeat(antipodal, 3, axis=0), y)
    assert report.equinorm == pytest.approx(0, abs=1e-6)
    assert report.equiangularity > 0.3
    assert report.nc2 > 0.3


def test_coinciding_means_have_no_nc1():
    constant = np.full((20, 6), 0.3, np.float32)
    assert np.isnan(nc.measure(constant, np.repeat(np.arange(4), 5)).nc1)


def test_nc4_reads_the_bias():
    h, y = sample(k=3, spread=0.1)
    means = np.stack([h[y == c].mean(0) for c in range(3)])
    assert nc.measure(h, y, classifier=(means, np.zeros(3, np.float32))).nc4 == 1.0
    assert nc.measure(h, y, classifier=(means, np.array([1e4, 0, 0], np.float32))).nc4 == pytest.approx(1 / 3)


@pytest.mark.parametrize(("k", "n", "d"), [(10, 50, 512), (10, 5, 512), (10, 40, 24), (30, 20, 8), (100, 10, 64)])
def test_noise_sits_at_the_floor(k, n, d):
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(k), n)
    ratios = [nc.measure(rng.normal(size=(k * n, d)).astype(np.float32), labels).nc1_over_floor for _ in range(12)]
    assert np.mean(ratios) == pytest.approx(1, rel=0.12)


def test_there_is_no_floor_where_its_mean_does_not_exist():
    report = nc.measure(np.random.default_rng(0).normal(size=(60, 9)).astype(np.float32), np.repeat(np.arange(10), 6))
    assert np.isnan(report.nc1_over_floor)
    assert report.to_dict()["nc1_over_floor"] is None


def test_masked_rows_may_hold_anything():
    h, y = sample()
    mask = np.ones(len(y), np.float32)
    mask[-7:] = 0
    dirty = h.copy()
    dirty[-7:] = np.nan
    start = nc.empty(5, h.shape[1])
    a, b = nc.observe(start, jnp.asarray(dirty), y, mask), nc.observe(start, jnp.asarray(h[:-7]), y[:-7])
    for x, z in zip(a, b, strict=True):
        np.testing.assert_allclose(x, z, rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 99))
def test_any_split_and_order_merge_to_the_same(seed, cut):
    h, y = sample(seed=3)
    order = np.random.default_rng(seed).permutation(len(y))
    a, b = order[:cut], order[cut:]
    start = nc.empty(5, h.shape[1])
    whole = nc.observe(start, jnp.asarray(h), y)
    parts = nc.merge(nc.observe(start, jnp.asarray(h[a]), y[a]), nc.observe(start, jnp.asarray(h[b]), y[b]))
    for x, z in zip(whole, parts, strict=True):
        np.testing.assert_allclose(x, z, rtol=1e-4, atol=1e-4)
    assert float(nc.nc1(parts)) == pytest.approx(float(nc.nc1(whole)), rel=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_invariant_to_rotation_scale_and_class_names(seed, scale):
    rng = np.random.default_rng(seed)
    h, y = sample(seed=seed)
    rotation = np.linalg.qr(rng.normal(size=(h.shape[1],) * 2))[0].astype(np.float32)
    before, after = nc.measure(h, y), nc.measure(scale * h @ rotation, rng.permutation(5)[y])
    for name in ("nc1", "cdnv", "trace_ratio", "nc2", "equinorm", "equiangularity", "class_separation"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=2e-3), name


def test_jit_and_strict_promotion(strict):
    h, y = sample()
    stats = jax.jit(nc.observe)(nc.empty(5, h.shape[1]), jnp.asarray(h), jnp.asarray(y))
    assert np.isfinite(float(jax.jit(nc.nc1)(stats)))


@pytest.mark.parametrize(("h", "y", "word"), [
    (np.ones((4, 2)), np.zeros(3, int), "labels"),
    (np.ones((4, 2)), np.zeros(4), "integers"),
    (np.ones((4, 2)), np.array([0, 1, -1, 0]), "outside"),
    (np.full((4, 2), np.nan), np.array([0, 0, 1, 1]), "NaN"),
])
def test_bad_input_is_one_clear_line(h, y, word):
    with pytest.raises(UserError, match=word):
        nc.measure(h, y)
