"""Collapse metrics against plain float64 NumPy, closed forms, and invariances."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from ncjax import nc
from ncjax.core import mesh
from ncjax.core.errors import UserError
from ncjax.nc import geometry, projected
from ncjax.nc.stats import _thirds, by_products

observe, look, nc1 = jax.jit(nc.observe), jax.jit(nc.look), jax.jit(nc.nc1)
TRUSTED = ("nc1", "cdnv", "trace_ratio")
FLOAT64 = (
    "nc1",
    "cdnv",
    "trace_ratio",
    "nc2",
    "equinorm",
    "equiangularity",
    "maximal_angle",
    "discrimination",
    "discrimination_centred",
)


def sample(seed=0, k=5, n=20, d=12, spread=1.0, offset=0.0, norm=3.0, decay=0.0, counts=None):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(k, d))
    means *= norm / np.linalg.norm(means, axis=1, keepdims=True)
    if decay:  # singular values i^-decay
        u, s, vt = np.linalg.svd(means - means.mean(0), full_matrices=False)
        top = min(k - 1, d)
        means = (u[:, :top] * (s[0] * np.arange(1, top + 1) ** -decay)) @ vt[:top]
    labels = np.repeat(np.arange(k), n) if counts is None else np.repeat(np.arange(k), counts)
    return (means[labels] + offset + spread * rng.normal(size=(len(labels), d))).astype(np.float32), labels


def unit(x):
    return x / np.linalg.norm(x)


def cosine(a, b):
    return np.abs(a @ b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b)


def entropy_rank(s):
    return np.exp(-np.sum(s / s.sum() * np.log(s / s.sum())))


def moments(h, y):
    h = np.asarray(h, np.float64)
    classes = [c for c in np.unique(y) if (y == c).sum() >= 2]
    means = np.stack([h[y == c].mean(0) for c in classes])
    residual = [h[y == c] - h[y == c].mean(0) for c in classes]
    return h, classes, means, residual


def reference(h, y, weighting="class"):
    """The definitions, as they are written, in float64."""
    _, classes, means, parts = moments(h, y)
    k, n = len(classes), np.array([len(r) for r in parts])
    share = np.full(k, 1 / k) if weighting == "class" else n / n.sum()
    centred = means - share @ means
    residual = np.concatenate(parts)
    within, between = residual.T @ residual / len(residual), (centred.T * share) @ centred
    values, vectors = np.linalg.eigh(between)
    top = np.argsort(values)[::-1][: min(k - 1, means.shape[1])]
    inverse = (vectors[:, top] / values[top]) @ vectors[:, top].T
    variance = [np.square(r).sum(1).mean() for r in parts]
    pairs = [
        (variance[i] + variance[j]) / (2 * np.square(means[i] - means[j]).sum())
        for i in range(k)
        for j in range(k)
        if i != j
    ]
    gram = centred @ centred.T
    etf = (np.eye(k) - 1 / k) / np.sqrt(k - 1)
    norms = np.linalg.norm(centred, axis=1)
    cosines = (gram / np.outer(norms, norms))[~np.eye(k, dtype=bool)]
    length = np.linalg.norm(means, axis=1)
    raw = (means @ means.T / np.outer(length, length))[~np.eye(k, dtype=bool)]
    return {
        "nc1": np.trace(within @ inverse) / k,
        "trace_ratio": np.trace(within) / np.trace(between),
        "cdnv": np.mean(pairs),
        "nc2": np.linalg.norm(gram / np.linalg.norm(gram) - etf),
        "equinorm": norms.std() / norms.mean(),
        "equiangularity": cosines.std(),
        "maximal_angle": np.abs(cosines + 1 / (k - 1)).mean(),
        "discrimination": 1 - raw.max(),
        "discrimination_centred": 1 - cosines.max(),
    }


def same(h, y, rel=1e-4, **options):
    """`measure` and the streamed statistics against the reference."""
    wanted = reference(h, y, **options)
    report, streamed = nc.measure(h, y, **options), nc.report(nc.collect(h, y, scatter=True), **options)
    for name, value in wanted.items():
        for found in (report, streamed):
            assert getattr(found, name) == pytest.approx(value, rel=rel, abs=0 if name in TRUSTED else 1e-9), name
            assert getattr(found, name) >= 0
    return report


@pytest.mark.parametrize(
    "setting",
    [
        dict(),
        dict(d=3),
        dict(k=2),
        dict(k=40, n=5, d=64),
        dict(k=30, n=8, d=4),
        dict(d=300, n=4),
        dict(k=1000, n=3, d=40),
        dict(k=101, n=4, d=60),
        dict(k=129, n=3, d=200),
        dict(k=6, counts=[2000, 2, 5, 9, 40, 1]),
    ],
    ids=str,
)
def test_metrics_equal_their_definitions(setting):
    same(*sample(**setting))


@pytest.mark.parametrize("spread", [1.0, 1e-1, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("shape", [dict(k=10, n=60, d=64), dict(k=12, n=40, d=8)], ids=str)
def test_deep_collapse_far_from_the_origin(spread, shape):
    h, y = sample(**shape, spread=spread, norm=14, offset=30)
    report = same(h, y)
    assert ("float32_limit" in report.flags) == (spread < 1e-3)
    halves = [(np.mean(np.square(h[y == c]), axis=0), np.mean(h[y == c], axis=0)) for c in np.unique(y)]
    raw = np.mean([np.sum(second - np.square(mean)) for second, mean in halves])  # float32, as others do it
    within = report.trace_ratio * np.trace(np.cov(moments(h, y)[2].T, bias=True))
    assert spread > 1e-2 or abs(raw / within - 1) > 0.01, "raw moments would have done"


@pytest.mark.parametrize("decay", [1.0, 1.5, 2.0, 2.5])
def test_steep_spectra_of_class_means(decay):
    same(*sample(k=100, n=6, d=512, decay=decay, norm=14, spread=1e-3))


def test_eigenvalues_over_a_million_at_full_size():
    """Where a float32 pseudo-inverse with the usual cut-off, D eps, loses most of the value."""
    h, y = sample(k=100, n=20, d=512, decay=1.6, norm=14, spread=1e-3)
    report = same(h, y)
    means = np.stack([h[y == c].mean(0) for c in range(100)])
    means = (means - means.mean(0)).astype(np.float32)
    within = h - np.stack([h[y == c].mean(0) for c in range(100)])[y]
    inverse = np.linalg.pinv(means.T @ means / 100, rcond=512 * np.finfo(np.float32).eps)
    careless = np.trace(inverse @ (within.T @ within / len(h))) / 100
    assert report.rank == 99
    assert careless < 0.3 * report.nc1


def test_sample_weighting():
    same(*sample(k=4, counts=[100, 10, 30, 2]), weighting="sample")
    with pytest.raises(UserError, match="weighting='examples'"):
        nc.measure(*sample(), weighting="examples")


def test_total_covariance_is_within_plus_between():
    h, y = sample(k=4, n=30, counts=[50, 20, 5, 8])
    stats = nc.collect(h, y)
    n = np.asarray(stats.count)[:, None]
    mean = np.asarray(stats.mean, np.float64)
    middle = (n * mean).sum(0) / n.sum()
    between = ((mean - middle) * n).T @ (mean - middle)
    total = np.cov(h.astype(np.float64).T, bias=True) * len(h)
    np.testing.assert_allclose(np.asarray(stats.scatter) + between, total, rtol=1e-5, atol=1e-4)


def test_bfloat16_features_are_measured_as_they_are():
    h, y = sample()
    low = jnp.asarray(h, jnp.bfloat16)
    wanted = reference(np.asarray(low.astype(jnp.float32)), y)
    for name, value in wanted.items():
        assert getattr(nc.measure(low, y), name) == pytest.approx(value, rel=1e-5), name


def test_absent_and_single_example_classes_are_left_out():
    h, y = sample(k=4)
    h, y = np.concatenate([h, h[:1] + 100]), np.concatenate([y, [6]])  # class 6 once, classes 4 and 5 never
    report = nc.measure(h, y)
    assert (report.num_classes, report.left_out) == (4, 3)
    assert "classes_left_out" in report.flags
    assert report.nc1 == pytest.approx(nc.measure(*sample(k=4)).nc1, rel=1e-5)
    assert report.cdnv == pytest.approx(reference(h, y)["cdnv"], rel=1e-4)
    assert report.nc2 == pytest.approx(reference(h, y)["nc2"], rel=1e-4)
    assert np.isnan(report.nc1_classes[4:]).all()
    assert np.isnan(report.cdnv_pairs[5]).all()


def simplex(k, d):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(d, k)))[0]
    return ((np.eye(k) - 1 / k) @ basis.T * np.sqrt(k / (k - 1))).astype(np.float32)


def test_exact_simplex_is_zero_and_antipodal_pairs_are_not():
    means = simplex(4, 8)
    h, y = np.repeat(means, 3, axis=0), np.repeat(np.arange(4), 3)
    report = nc.measure(h, y, classifier=(means, np.zeros(4, np.float32)))
    for name in (
        "nc1",
        "cdnv",
        "nc2",
        "nc3",
        "nc3_papyan",
        "nc2_w",
        "equinorm",
        "equiangularity",
        "maximal_angle",
        "angle",
    ):
        assert getattr(report, name) == pytest.approx(0, abs=2e-6), name
    assert (report.nc4, report.accuracy, report.discrimination_centred) == (1.0, 1.0, pytest.approx(4 / 3))
    antipodal = np.zeros((4, 8), np.float32)
    antipodal[[0, 1, 2, 3], [0, 0, 1, 1]] = [1, -1, 1, -1]
    report = nc.measure(np.repeat(antipodal, 3, axis=0), y)
    assert report.equinorm == pytest.approx(0, abs=1e-6)
    assert report.equiangularity > 0.3
    assert report.maximal_angle > 0.3
    assert report.nc2 > 0.3
    assert "rank_deficient" in report.flags


@pytest.mark.parametrize("row", [np.full(6, 0.3), np.random.default_rng(0).normal(size=6)], ids=["same", "token"])
def test_coinciding_means_have_no_nc1(row):
    constant = np.tile(row, (20, 1)).astype(np.float32)
    assert np.isnan(nc.report(nc.collect(constant, np.repeat(np.arange(4), 5))).nc1)
    assert np.isnan(nc.measure(constant, np.repeat(np.arange(4), 5)).nc1)


def test_classifier_metrics_equal_their_definitions(rng):
    h, y = sample(k=6, d=20)
    weight, bias = rng.normal(size=(6, 20)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    _, _, means, _ = moments(h, y)
    centred = means - means.mean(0)
    etf = (np.eye(6) - 1 / 6) / np.sqrt(5)
    report = nc.measure(h, y, classifier=(weight, bias))
    rows = weight.astype(np.float64)
    rows = rows - rows.mean(0)
    wanted = {
        "nc2_w": unit(weight @ weight.T) - etf,
        "nc2_w_centred": unit(rows @ rows.T) - etf,
        "nc3": unit(weight @ centred.T) - etf,
        "nc3_papyan": unit(weight) - unit(centred),
    }
    for name, difference in wanted.items():
        assert getattr(report, name) == pytest.approx(np.linalg.norm(difference), rel=1e-5), name
    angles = scipy.linalg.subspace_angles(np.linalg.svd(centred)[2][:5].T, np.linalg.svd(rows)[2][:5].T)
    np.testing.assert_allclose(report.angles, np.sort(angles), atol=1e-6)
    near = np.argmin(np.square(h[:, None] - means[None]).sum(-1), axis=1)
    decided = np.argmax(h @ weight.T + bias, axis=1)
    assert report.nc4 == pytest.approx(np.mean(near == decided))
    assert report.ncc_accuracy == pytest.approx(np.mean(near == y))
    assert report.accuracy == pytest.approx(np.mean(decided == y))
    alone = nc.nearest_class_mean_agreement(nc.collect(h, y), jnp.asarray(h), jnp.asarray(weight), jnp.asarray(bias))
    assert report.nc4 == pytest.approx(float(alone))


def test_subspace_angles_know_small_angles_absent_classes_and_dependent_rows():
    h, y = sample(k=6, d=40)
    stats = nc.collect(h, y, num_classes=7)  # the last class is absent
    weight = np.zeros((7, 40), np.float32)
    weight[:6] = stats.mean[:6]
    angles = np.asarray(nc.subspace_angles(stats, weight))
    np.testing.assert_allclose(angles[:5], 0, atol=1e-6)  # float32 means: what was put in, rounded
    assert np.isnan(angles[5:]).all()
    report = nc.measure(h, y, num_classes=7, classifier=(weight, np.zeros(7, np.float32)))
    assert report.angle < 1e-6
    weight[5] = weight[4]  # a direction of the means that W no longer has
    np.testing.assert_allclose(np.asarray(nc.subspace_angles(stats, weight))[:5], [0, 0, 0, 0, np.pi / 2], atol=1e-6)


def test_nc4_reads_the_bias():
    h, y = sample(k=3, spread=0.1)
    means = np.stack([h[y == c].mean(0) for c in range(3)])
    assert nc.measure(h, y, classifier=(means, np.zeros(3, np.float32))).nc4 == 1.0
    assert nc.measure(h, y, classifier=(means, np.array([1e4, 0, 0], np.float32))).nc4 == pytest.approx(1 / 3)


def test_a_classifier_that_says_nothing_does_not_agree():
    h, y = sample(k=3, spread=0.1)  # all logits tie: the first class is decided, as argmax does
    assert nc.measure(h, y, classifier=(np.zeros((3, 12), np.float32), np.zeros(3, np.float32))).nc4 == pytest.approx(1 / 3)


def test_directional_cdnv_equals_its_definition():
    h, y = sample(k=4, counts=[9, 14, 6, 20], d=7)
    _, _, means, parts = moments(h, y)
    found = []
    for i in range(4):
        for j in range(4):
            if i != j:
                apart = means[i] - means[j]
                along = parts[i] @ unit(apart)
                found.append(np.square(along).mean() / np.square(apart).sum())
    assert nc.measure(h, y).directional_cdnv == pytest.approx(np.mean(found), rel=1e-5)
    assert np.isnan(nc.report(nc.collect(h, y)).directional_cdnv)  # without a look


def test_classes_and_pairs():
    h, y = sample(k=4, counts=[30, 20, 10, 5])
    report = nc.measure(h, y)
    assert np.average(report.nc1_classes, weights=report.counts) == pytest.approx(report.nc1, rel=1e-5)
    for a, b in ((0, 1), (2, 3), (1, 3)):
        two = np.isin(y, (a, b))
        assert report.nc1_pairs[a, b] == pytest.approx(reference(h[two], y[two])["nc1"], rel=1e-5)
        assert report.cdnv_pairs[a, b] == pytest.approx(reference(h[two], y[two])["cdnv"], rel=1e-5)


def test_test_features_about_the_training_means():
    h, y = sample(seed=1, k=4, n=30)
    test, labels = h[::3] + 0.2, y[::3]
    train = nc.collect(h, y)
    classifier = (np.eye(4, 12, dtype=np.float32), np.zeros(4, np.float32))
    report = nc.measure(test, labels, centres=train, classifier=classifier)
    _, _, means, _ = moments(h, y)
    residual = test - means[labels]
    centred = means - means.mean(0)
    wanted = np.trace(residual.T @ residual / len(test) @ np.linalg.pinv(centred.T @ centred / 4, rcond=1e-9)) / 4
    assert report.nc1_about == pytest.approx(wanted, rel=1e-5)
    assert report.nc1 == pytest.approx(reference(test, labels)["nc1"], rel=1e-5)
    assert report.nc1_about > 1.02 * report.nc1
    near = np.argmin(np.square(test[:, None] - means[None]).sum(-1), axis=1)
    assert report.nc4 == pytest.approx(np.mean(near == np.argmax(test[:, :4], axis=1)))
    variance = np.array([np.square(residual[labels == c]).sum(1).mean() for c in range(4)])
    pair = [(variance[a] + variance[b]) / (2 * np.square(means[a] - means[b]).sum()) for a in range(4) for b in range(a)]
    assert report.cdnv_about == pytest.approx(np.mean(pair), rel=1e-5)


def test_nc5(rng):
    h, y = sample(offset=1.0)
    outside = rng.normal(size=(50, 12)).astype(np.float32) + 0.5
    _, _, means, _ = moments(h, y)
    mean = outside.astype(np.float64).mean(0)
    assert nc.measure(h, y, outside=outside).nc5 == pytest.approx(cosine(means, mean).mean(), rel=1e-5)
    centred = cosine(means - means.mean(0), mean - means.mean(0)).mean()
    assert float(nc.nc5(nc.collect(h, y), jnp.asarray(outside), centred=True)) == pytest.approx(centred, rel=1e-5)


def test_ranks_equal_their_definitions():
    h, y = sample(k=4, n=30, d=24, offset=0.5)
    double = h.astype(np.float64)
    report = nc.measure(h, y, spectrum=True)
    raw, centred = (np.linalg.svd(x, compute_uv=False) for x in (double, double - double.mean(0)))
    assert report.rankme == pytest.approx(entropy_rank(raw), rel=1e-4)
    assert report.effective_rank == pytest.approx(entropy_rank(raw), rel=1e-5)
    assert report.effective_rank_centred == pytest.approx(entropy_rank(centred), rel=1e-5)
    assert report.stable_rank == pytest.approx(np.square(raw).sum() / raw[0] ** 2, rel=1e-5)
    assert report.stable_rank_centred == pytest.approx(np.square(centred).sum() / centred[0] ** 2, rel=1e-5)
    assert report.numerical_rank_share == 1 + np.sum(np.cumsum(raw) < 0.95 * raw.sum())
    own = [np.linalg.svd(double[y == c], compute_uv=False) for c in range(4)]
    assert report.numerical_rank == pytest.approx(np.mean([s.sum() ** 2 / np.square(s).sum() for s in own]), rel=1e-6)
    _, _, means, parts = moments(h, y)
    residual, means = np.concatenate(parts), means - means.mean(0)
    between = means.T @ means / 4
    total = residual.T @ residual / len(h) + between
    assert report.vci == pytest.approx(1 - np.trace(np.linalg.pinv(total) @ between) / 3, rel=1e-5)
    with pytest.raises(UserError, match="scatter"):
        nc.ranks(nc.collect(h, y, scatter=False))


@pytest.mark.parametrize(
    ("counts", "weighting"),
    [([60] * 6, "class"), ([20, 30, 40, 60, 90, 120], "class"), ([20, 30, 40, 60, 90, 120], "sample")],
    ids=str,
)
def test_standard_errors_are_the_spread_over_draws(counts, weighting):
    rng = np.random.default_rng(0)
    means = rng.normal(size=(6, 20))
    labels = np.repeat(np.arange(6), counts)
    values, looked, streamed = [], [], []
    for _ in range(150):
        h = (means[labels] + rng.normal(size=(360, 20)) * np.linspace(2, 0.3, 20)).astype(np.float32)
        stats = nc.collect(h, labels)
        report = nc.report(stats, weighting=weighting)
        whole = nc.measure(h, labels, weighting=weighting)
        values.append([getattr(whole, m) for m in (*TRUSTED, "directional_cdnv")])
        if len(looked) < 30:
            ends = np.array([[r.interval[m] for m in (*TRUSTED, "directional_cdnv")] for r in (whole, report)])
            errors = np.log(ends[..., 1] / ends[..., 0]) / (2 * 1.959964) * values[-1]
            looked.append(errors[0])
            streamed.append(errors[1])
    assert np.isnan(streamed)[:, 3].all()  # directional CDNV takes a look
    for found, count in ((looked, 4), (streamed, 3)):
        np.testing.assert_allclose(np.mean(found, axis=0)[:count], np.std(values, axis=0)[:count], rtol=0.25)


def test_the_order_of_examples_does_not_move_an_interval():
    """Though a part of it is estimated from some of them: here the labels' period divides the even stride."""
    rng = np.random.default_rng(0)
    y = np.arange(48 * 1024) % 6
    h = (3 * np.eye(6, 16)[y] + rng.normal(size=(len(y), 16)) * np.linspace(2, 0.3, 16)).astype(np.float32)
    order = rng.permutation(len(y))
    one, two = nc.measure(h, y), nc.measure(h[order], y[order])
    np.testing.assert_allclose(one.interval["nc1"], two.interval["nc1"], rtol=3e-4)


def test_memory_of_cdnv_is_that_of_the_pairs():
    """K = 256, D = 512: some K x K and K x D arrays of float64, where K x K x D would be 268 MB."""
    stats = jax.eval_shape(lambda: nc.empty(256, 512, scatter=False))
    need = jax.jit(nc.cdnv).lower(stats).compile().memory_analysis().temp_size_in_bytes
    assert 0 < need < 8 * 8 * (256 * 256 + 256 * 512)


def test_beyond_256_directions_angles_are_for_the_asking():
    h, y = sample(k=260, n=3, d=300)
    classifier = (np.random.default_rng(0).normal(size=(260, 300)).astype(np.float32), np.zeros(260, np.float32))
    assert nc.measure(h, y, classifier=classifier).angles is None
    report = nc.measure(h, y, classifier=classifier, spectrum=True)
    wanted = np.asarray(nc.subspace_angles(nc.collect(h, y), classifier[0]))
    np.testing.assert_allclose(report.angles, wanted, atol=1e-6)


def test_intervals_of_two_examples_a_class_are_not_those_of_identical_ones():
    """A class's two residuals are each other's negatives: what they vary by about their own mean is always zero."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(10), 2)
    means = 4 * rng.normal(size=(10, 64))
    values, widths = [], []
    for _ in range(60):
        report = nc.measure((means[labels] + rng.normal(size=(20, 64))).astype(np.float32), labels)
        ends = np.array([report.interval[m] for m in ("nc1", "cdnv", "trace_ratio")])
        values.append(np.log([report.nc1, report.cdnv, report.trace_ratio]))
        widths.append(np.log(ends[:, 1] / ends[:, 0]) / 2)
    assert (np.mean(widths, axis=0) > 1.5 * np.std(values, axis=0)).all()


def test_float64_features_are_measured_in_float64_where_jax_has_it():
    h, y = sample(k=5, n=20, d=12)
    rng = np.random.default_rng(0)
    h = (14 * rng.normal(size=(5, 12)))[y] + 30 + 1e-8 * rng.normal(size=(100, 12))
    wanted = reference(h, y)
    with jax.enable_x64(True):
        report = nc.measure(h, y)
    for name in ("nc1", "cdnv", "trace_ratio"):
        assert getattr(report, name) == pytest.approx(wanted[name], rel=1e-5), name


def test_a_look_without_decisions_or_classifier_decides_nothing():
    h, y = sample()
    stats, classifier = nc.collect(h, y), (h[::20], np.zeros(5, np.float32))
    report = nc.report(stats, classifier=classifier, look=nc.look_at(stats, h, y))
    assert np.isnan([report.nc4, report.accuracy]).all()
    assert report.ncc_accuracy > 0
    report = nc.report(stats, look=nc.look_at(stats, h, y, decisions=False))
    assert np.isnan(report.ncc_accuracy)
    assert report.nc1_pairs is None


def test_examples_of_classes_left_out_are_decided_too():
    h, y = sample(k=5, n=30)
    kept = np.flatnonzero((y < 4) | (np.arange(150) == 120))  # one training example of the last class
    classifier = (np.eye(5, 12, dtype=np.float32), np.zeros(5, np.float32))
    report = nc.measure(h, y, centres=nc.collect(h[kept], y[kept]), classifier=classifier)
    decided = np.argmax(h[:, :5], axis=1)
    means = np.stack([h[kept][y[kept] == c].mean(0) for c in range(4)])
    near = np.argmin(np.square(h[:, None] - means[None]).sum(-1), axis=1)
    assert report.accuracy == pytest.approx(np.mean(decided == y))
    assert report.nc4 == pytest.approx(np.mean(decided == near))
    assert report.ncc_accuracy == pytest.approx(np.mean(near == y))


def test_centres_must_be_sound():
    h, y = sample()
    for centres, line in (
        (nc.empty(5, 12), "two or more classes"),
        (h, "centres: got .*, expected ClassStats"),
        (nc.observe(nc.empty(5, 12), np.where(h > 4, np.nan, h), y), "NaN"),
    ):
        with pytest.raises(UserError, match=line):
            nc.measure(h, y, centres=centres)


def test_labels_outside_are_ignored_and_wrong_shapes_refused():
    h, y = sample(k=3)
    more = np.concatenate([y, np.full(4, -1), np.full(4, 3)])
    found = nc.observe(nc.empty(3, 12), np.concatenate([h, 100 + h[:8]]), more)
    np.testing.assert_allclose(found.scatter, nc.collect(h, y).scatter, rtol=1e-4, atol=1e-3)
    assert found.count.sum() == len(y)
    with pytest.raises(UserError, match=r"expected features \[N, 12\]"):
        nc.observe(nc.empty(3, 12), h[:, :1], y)
    with pytest.raises(UserError, match="labels must be integers"):
        nc.observe(nc.empty(3, 12), h, y.astype(np.float32))


def test_long_sums_of_equal_numbers_do_not_drift():
    """One after another, 25 000 equal float32 residuals are off by far more than a random walk would be."""
    rng, y = np.random.default_rng(0), np.arange(50_000) % 2
    h = np.concatenate([np.full((50_000, 8), 0.1) + 0.3 * y[:, None], rng.normal(size=(50_000, 8)) * 1e-2], axis=1)
    h = h.astype(np.float32)
    wanted = reference(h, y)
    streamed = nc.report(observe(nc.empty(2, 16), h, y))
    for name in ("nc1", "cdnv", "trace_ratio"):
        for found in (nc.measure(h, y), streamed):
            assert getattr(found, name) == pytest.approx(wanted[name], rel=2e-5), name


def test_classes_that_coincide():
    h, y = np.repeat([[0.0, 0], [0, 0], [3, 4]], 5, axis=0).astype(np.float32), np.repeat(np.arange(3), 5)
    assert np.isnan(nc.measure(h, y).cdnv)  # two collapsed classes in one place
    h = h + np.tile([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0, 0]], (3, 1)).astype(np.float32)
    report = nc.measure(h, y)
    assert report.cdnv == np.inf
    assert "inf" in str(report)
    report = nc.measure(np.ones((15, 2), np.float32), y)
    assert np.isnan([report.nc1, report.equiangularity, report.discrimination_centred]).all()


def test_a_scatter_too_coarse_for_nc1_says_so():
    """Noise that follows the spectrum of the class means: NC1 is decided where the scatter has no digits."""
    rng = np.random.default_rng(0)
    scale, y = np.arange(1.0, 101) ** -2.5, np.repeat(np.arange(50), 20)
    h = (rng.normal(size=(50, 100))[y] + 1e-2 * rng.normal(size=(1000, 100))) * scale
    h = (h @ np.linalg.qr(rng.normal(size=(100, 100)))[0]).astype(np.float32)
    wanted = reference(h, y)["nc1"]
    streamed = nc.report(nc.collect(h, y))
    assert nc.measure(h, y).nc1 == pytest.approx(wanted, rel=1e-4)
    assert streamed.nc1 >= 0
    assert streamed.nc1 != pytest.approx(wanted, rel=1e-3)
    assert "float32_limit" in streamed.flags


def test_features_so_small_that_their_squares_vanish_are_flagged():
    h, y = sample()
    assert "float32_limit" not in nc.measure(h * np.float32(1e-15), y).flags
    assert "float32_limit" in nc.measure(h * np.float32(1e-19), y).flags


def test_flags():
    assert "narrow" in nc.measure(*sample(k=9, d=7, n=30)).flags
    assert "narrow" not in nc.measure(*sample(k=9, d=8, n=30)).flags
    h, y = sample(k=3, counts=[200, 5, 30])
    assert set(nc.measure(h, y).flags) == {"too_few_per_class", "imbalanced"}
    assert nc.measure(*sample(k=3, n=50)).flags == ()


def test_masked_rows_may_hold_anything():
    h, y = sample()
    mask = np.ones(len(y), np.float32)
    mask[-7:], mask[:2] = 0, 0
    dirty = h.copy()
    dirty[mask == 0] = np.nan
    start, kept = nc.empty(5, h.shape[1]), mask > 0
    a, b = nc.observe(start, jnp.asarray(dirty), y, mask), nc.observe(start, jnp.asarray(h[kept]), y[kept])
    for x, z in zip(a, b, strict=True):
        np.testing.assert_allclose(x, z, rtol=1e-5, atol=1e-5)
    frame = nc.frame(b)
    a = nc.look(nc.unseen(frame), frame, jnp.asarray(dirty), y, mask)
    b = nc.look(nc.unseen(frame), frame, jnp.asarray(h[kept]), y[kept])
    for x, z in zip(a, b, strict=True):
        np.testing.assert_allclose(x, z, rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 99), st.booleans())
def test_any_split_and_order_merge_to_the_same(seed, cut, scatter):
    h, y = sample(seed=3, offset=30, spread=1e-2)
    order = np.random.default_rng(seed).permutation(len(y))
    first = (np.arange(len(y)) < cut).astype(np.float32)
    start = nc.empty(5, h.shape[1], scatter=scatter)
    whole = observe(start, h, y)
    one, two = (observe(start, h[order], y[order], mask) for mask in (first, 1 - first))
    frame = jax.jit(nc.frame)(whole)
    full = look(nc.unseen(frame), frame, h, y)
    looks = [look(nc.unseen(frame), frame, h[order], y[order], mask) for mask in (first, 1 - first)]
    for parts in (
        nc.merge(one, two),
        nc.merge(two, one),
        nc.merge(nc.merge(start, one), nc.merge(two, start)),
        observe(one, h[order], y[order], 1 - first),
    ):
        np.testing.assert_allclose(parts.spread, whole.spread, rtol=1e-4)
        np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-6)
        assert float(nc1(parts, nc.merge(*looks))) == pytest.approx(float(nc1(whole, full)), rel=1e-5)
        if scatter:
            assert float(nc1(parts)) == pytest.approx(float(nc1(whole)), rel=1e-5)
    np.testing.assert_allclose(nc.merge(*looks).near, full.near)


def test_statistics_of_different_kinds_do_not_merge():
    with pytest.raises(UserError, match="without scatter"):
        nc.merge(nc.empty(3, 4), nc.empty(3, 4, scatter=False))
    with pytest.raises(UserError, match="second look"):
        nc.nc1(nc.collect(*sample(), scatter=False))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_invariant_to_rotation_scale_and_class_names(seed, scale):
    rng = np.random.default_rng(seed)
    h, y = sample(seed=seed)
    rotation = np.linalg.qr(rng.normal(size=(h.shape[1],) * 2))[0]
    turned = (scale * h.astype(np.float64) @ rotation).astype(np.float32)
    before, after = nc.measure(h, y), nc.measure(turned, rng.permutation(5)[y])
    for name in FLOAT64:
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-4), name
    np.testing.assert_allclose(after.interval["cdnv"], before.interval["cdnv"], rtol=1e-3)
    assert after.flags == before.flags


def test_two_runs_give_the_same_bits():
    h, y = sample(k=7, n=40, d=33)
    first, second = (nc.measure(h, y, spectrum=True).to_dict(arrays=True) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


def test_sharded_features_give_the_same_report():
    h, y = sample(k=4, n=30)
    sharding = NamedSharding(mesh.make(), PartitionSpec("data"))
    one, two = nc.measure(h, y), nc.measure(jax.device_put(h, sharding), y)
    assert len(jax.devices()) > 1
    for name, value in one.scalars().items():
        assert two.scalars()[name] == pytest.approx(value, rel=1e-4), name


def test_jit_and_strict_promotion(strict):
    h, y = sample()
    stats = jax.jit(nc.observe, donate_argnums=0)(nc.empty(5, h.shape[1]), jnp.asarray(h), jnp.asarray(y))
    weight = jnp.asarray(h[:5])
    for function in (
        nc.nc1,
        nc.cdnv,
        nc.trace_ratio,
        nc.nc2,
        nc.equinorm,
        nc.equiangularity,
        nc.maximal_angle,
        nc.discrimination,
        nc.discrimination_centred,
        nc.nc1_rank,
    ):
        assert np.isfinite(float(jax.jit(function)(stats))), function.__name__
        assert float(jax.jit(function)(stats)) == pytest.approx(float(function(stats)), rel=1e-6)
    for function in (nc.nc3, nc.nc3_papyan):
        assert np.isfinite(float(jax.jit(function)(stats, weight)))
    frame = jax.jit(nc.frame)(stats, (weight, jnp.zeros(5)))
    look = jax.jit(nc.look)(nc.unseen(frame), frame, jnp.asarray(h), jnp.asarray(y))
    assert float(jax.jit(nc.nc1)(stats, look)) == pytest.approx(float(nc.nc1(stats)), rel=1e-5)
    assert jax.jit(nc.nc1)(stats).dtype == jnp.float32
    assert np.isfinite(jax.tree.leaves(jax.jit(nc.ranks)(stats))).all()
    assert np.isfinite(jax.tree.leaves(jax.jit(nc.errors)(stats)))[:3].all()  # directional CDNV takes a look
    assert np.isfinite(jax.tree.leaves(jax.jit(nc.errors)(stats, look))).all()
    assert np.isfinite(jax.jit(nc.subspace_angles)(stats, weight)).all()


def test_the_report_is_data_and_a_table():
    h, y = sample()
    report = nc.measure(h, y, classifier=(h[:5], np.zeros(5, np.float32)))
    low, high = report.interval["nc1"]
    assert low < report.nc1 < high
    text = str(report)
    assert "flags: none" in text
    assert f"{report.nc1:.4g}" in text
    assert "NaN" not in json.dumps(report.to_dict(arrays=True))
    assert len(report.to_dict(arrays=True)["cdnv_pairs"]) == 5
    assert "cdnv_pairs" not in report.to_dict()
    assert {"nc1", "nc1_low", "nc1_high", "nc1_over_floor", "nc1_p", "directional_cdnv", "nc4"} <= set(report.scalars())


def test_torch_tensors_go_in_as_they_are():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    h, y = sample()
    wanted = nc.measure(h, y).nc1
    assert nc.measure(torch.from_numpy(h), torch.from_numpy(y)).nc1 == wanted
    assert nc.measure(torch.from_numpy(h).double().requires_grad_(), torch.from_numpy(y)).nc1 == wanted


NAN = np.where(np.arange(10)[:, None] == 3, np.nan, np.random.default_rng(0).normal(size=(10, 2)))


@pytest.mark.parametrize(
    ("h", "y", "line"),
    [
        (np.ones((4, 2)), np.zeros(3, int), "4 features but 3 labels"),
        (np.ones((4, 2)), np.zeros(4), "labels must be integers, got float64"),
        (np.ones((4, 2)), np.array([0, 1, -1, 0]), "labels run from -1 to 1"),
        (np.ones((4, 2)), np.zeros(4, int), "two or more with two examples"),
        (np.ones((0, 2)), np.zeros(0, int), "empty"),
        (np.ones(4), np.zeros(4, int), r"expected features \[N, D\]"),
        (np.ones((4, 2, 2)), np.zeros(4, int), r"expected features \[N, D\]"),
        (np.array([[1, 2], [3]] * 2, object), np.zeros(4, int), "features: its rows are of different lengths"),
        (np.ones((4, 2)), np.array(["a", "b"] * 2), "labels: got <U1, expected numbers"),
        (np.ones((4, 2)), [[0], [1, 2], 3, 4], "labels: "),
        (np.ones((4, 2)), np.array([True, False] * 2), "labels must be integers, got bool"),
        (np.array([["a", "b"]] * 4), np.zeros(4, int), "features: got <U1, expected numbers"),
        ([[1, 2], [3]], np.zeros(2, int), "different lengths"),
        (NAN, np.repeat([0, 1], 5), r"1 examples have NaN or infinite features \(classes \[0\]\)"),
        (np.where(np.isnan(NAN), np.inf, NAN), np.repeat([0, 1], 5), "1 examples have NaN or infinite"),
        (np.full((4, 2), 1e30) * [[1], [-1], [2], [3]], np.array([0, 0, 1, 1]), "overflow float32"),
    ],
)
def test_bad_input_is_one_clear_line(h, y, line):
    with pytest.raises(UserError, match=line) as caught:
        nc.measure(h, y)
    assert "\n" not in str(caught.value)


def test_statistics_that_met_nan_are_refused():
    h, y = sample(k=3)
    h[[3, 5, 45], [0, 1, 2]] = np.nan, np.inf, -np.inf
    one, two = (nc.observe(nc.empty(3, 12), h[i::2], y[i::2]) for i in range(2))
    with pytest.raises(UserError, match=r"3 examples have NaN or infinite features \(classes \[0, 2\]\)"):
        nc.report(nc.merge(one, two))


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(UserError, match=r"labels run from 0 to 4, outside \[0, 3\)"):
        nc.measure(*sample(), num_classes=3)


def test_what_does_not_fit_together_is_refused():
    h, y = sample()
    with pytest.raises(UserError, match=r"expected features \[N, 12\]"):
        nc.measure(h[:, :5], y, centres=nc.collect(h, y))
    with pytest.raises(UserError, match=r"outside the statistics' \[0, 3\)"):
        nc.look_at(nc.collect(*sample(k=3)), h, y)
    with pytest.raises(UserError, match=r"outside: expected features \[M, 12\]"):
        nc.measure(h, y, outside=np.ones((4, 5)))
    with pytest.raises(UserError, match="renumber the labels"):
        nc.measure(h, np.where(y == 2, 10**9, y))
    with pytest.raises(UserError, match="complex"):
        nc.measure(h.astype(complex), y)


def test_a_classifier_of_the_wrong_shape_is_refused():
    h, y = sample()
    with pytest.raises(UserError, match=r"expected weight \[5, 12\]"):
        nc.measure(h, y, classifier=(np.ones((12, 5)), np.ones(5)))
    with pytest.raises(UserError, match=r"classifier: got ndarray, expected \(weight"):
        nc.measure(h, y, classifier=np.ones(5))
    with pytest.raises(UserError, match="NaN"):
        nc.measure(h, y, classifier=(np.full((5, 12), np.nan), np.ones(5)))
    for outside in (np.full((3, 12), np.nan), np.ones((0, 12)), np.array(["a"] * 12)):
        with pytest.raises(UserError, match="outside"):
            nc.measure(h, y, outside=outside)
    for options, line in (({"num_classes": 3.0}, "expected an integer"), ({"weighting": ["class"]}, "weighting=")):
        with pytest.raises(UserError, match=line):
            nc.measure(h, y, **options)


def test_class_sums_by_products_lose_nothing(rng):
    x = (1e3 * rng.normal(size=(500, 7)) * np.exp(5 * rng.normal(size=(500, 1)))).astype(np.float32)
    y = rng.integers(0, 4, 500)
    wanted = np.stack([x[y == k].astype(np.float64).sum(0) for k in range(4)])
    for dtype, close in ((np.float32, 1e-6), (np.float64, 1e-14)):
        with jax.enable_x64(dtype == np.float64):
            found = np.asarray(jax.jit(by_products, static_argnums=2)(jnp.asarray(x, dtype), jnp.asarray(y), 4))
        scale = np.stack([np.abs(x[y == k]).astype(np.float64).sum(0) for k in range(4)])
        assert found.dtype == dtype
        assert (np.abs(found - wanted) / scale).max() < close
    parts = np.stack([np.asarray(p, np.float64) for p in _thirds(jnp.asarray(x))])
    np.testing.assert_array_equal(parts.sum(0), x)  # all 24 bits


def test_matrices_of_pairs_in_blocks_give_the_same(rng, monkeypatch):
    y = np.repeat(np.arange(23), 5)
    x = (rng.normal(size=(23, 9))[y] + 0.3 * rng.normal(size=(len(y), 9))).astype(np.float32)
    weight = rng.normal(size=(23, 9)).astype(np.float32)
    whole = nc.measure(x, y, classifier=(weight, None)).scalars()
    jax.clear_caches()
    monkeypatch.setattr(geometry, "PAIRS", 100)  # four rows at once
    assert nc.measure(x, y, classifier=(weight, None)).scalars() == pytest.approx(whole, rel=1e-9)
    jax.clear_caches()


def test_classes_that_coincide_do_so_in_blocks_too(rng, monkeypatch):
    monkeypatch.setattr(geometry, "PAIRS", 30)
    jax.clear_caches()
    x = rng.normal(size=(12, 7)).astype(np.float32)
    x[1] = x[0]
    found = nc.measure(np.repeat(x, 2, axis=0), np.repeat(np.arange(12), 2), floors=False)
    jax.clear_caches()
    assert np.isnan(found.cdnv)  # 0 / 0, as of two collapsed classes in one matrix


def test_beyond_a_number_of_classes_pairs_are_left_out_and_said_so(rng, monkeypatch):
    for module in ("geometry", "projected", "metrics", "null", "report", "uncertainty"):
        monkeypatch.setattr(sys.modules[f"ncjax.nc.{module}"], "PAIRS_UP_TO", 20)
    assert projected.PAIRS_UP_TO == 20
    jax.clear_caches()
    y = np.repeat(np.arange(24), 5)
    x = (3 * rng.normal(size=(24, 9))[y] + rng.normal(size=(len(y), 9))).astype(np.float32)
    weight, bias = rng.normal(size=(24, 9)).astype(np.float32), rng.normal(size=24).astype(np.float32)
    found = nc.measure(x, y, classifier=(weight, bias))
    jax.clear_caches()
    assert "beyond 4096 classes" in str(found)
    assert "cdnv_pairs" not in found.arrays
    assert np.isnan(found.floor["nc1"])
    assert np.isnan(found.interval["cdnv"][0])
    assert np.isfinite([found.nc1, found.cdnv, found.nc2, found.nc3, *found.interval["nc1"]]).all()
    logits = x @ weight.T + bias
    assert found.values["accuracy"] == pytest.approx(np.mean(np.argmax(logits, 1) == y))
