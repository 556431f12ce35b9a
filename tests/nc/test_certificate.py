"""The few-shot certificate holds, and is no looser than it must be; scores of what lies outside."""

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import nc
from ncjax.core.errors import UserError
from ncjax.nc.certificate import few_shot_certificate, pair_errors
from ncjax.nc.geometry import geometry
from ncjax.nc.outside import auroc, nci, neco


def seen(rng, apart, k=4, n=60, d=8, uneven=True):
    spread = np.linspace(0.5, 1.5, k) if uneven else np.ones(k)
    labels = np.repeat(np.arange(k), n)
    means = apart * rng.normal(size=(k, d))
    features = (means[labels] + spread[labels, None] * rng.standard_t(5, size=(k * n, d))).astype(np.float32)
    stats = nc.collect(features, labels, num_classes=k)
    return features, labels, stats, nc.look_at(stats, features, labels)


def error(features, labels, shots, rng, draws=400):
    """Of nearest means of examples drawn with replacement, on examples drawn likewise."""
    k, wrong = labels.max() + 1, []
    of = [np.flatnonzero(labels == c) for c in range(k)]
    for _ in range(draws):
        means = np.stack([features[rng.choice(rows, shots)].mean(0) for rows in of])
        tried = np.concatenate([rng.choice(rows, 5) for rows in of])
        nearest = ((features[tried, None] - means[None]) ** 2).sum(2).argmin(1)
        wrong.append((nearest != labels[tried]).mean())
    return float(np.mean(wrong))


@pytest.mark.parametrize("shots", [1, 5, 50])
@pytest.mark.parametrize("apart", [1.0, 3.0, 10.0])
def test_the_certificate_holds(shots, apart):
    rng = np.random.default_rng(3)
    features, labels, stats, look = seen(rng, apart)
    bound = float(few_shot_certificate(stats, look, shots=shots))
    assert 0 < bound <= 1
    assert error(features, labels, shots, rng) <= bound


def test_it_is_of_use_where_features_have_collapsed_and_falls_with_shots():
    _, _, stats, look = seen(np.random.default_rng(3), 10.0)
    bounds = [float(few_shot_certificate(stats, look, shots=m)) for m in (1, 2, 5, 100)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 0.05


def test_pairs_against_the_moments_they_bound(rng):
    """With many examples what is left is Cantelli's bound of the directional CDNV; with one, all terms count."""
    features, labels, stats, look = seen(rng, 4.0, k=3)
    x = features.astype(np.float64)
    means = np.stack([x[labels == c].mean(0) for c in range(3)])
    for shots in (1, 4, 10**9):
        wanted = np.zeros((3, 3))
        for i in range(3):
            for j in range(3):
                if i == j:
                    continue
                r = {c: x[labels == c] - means[c] for c in (i, j)}
                d = means[i] - means[j]
                s = {c: (r[c] ** 2).sum(1).mean() for c in (i, j)}
                v = {c: ((r[c] ** 2).sum(1).var()) / shots**3 + 2 * (shots - 1) * s[c] ** 2 / shots**3 for c in (i, j)}
                along = {c: ((r[c] @ d) ** 2).mean() for c in (i, j)}
                var = 4 * along[i] + 2 * (4 * along[j] / shots + v[j]) + v[i] + 4 / shots * (s[i] ** 2 + s[i] * s[j])
                mean = d @ d + (s[j] - s[i]) / shots
                wanted[i, j] = var / (var + mean**2) if mean > 0 else 1
        with_x64 = pair_errors_in_double(stats, look, shots)
        np.testing.assert_allclose(with_x64, wanted, rtol=1e-4)
    directional = float(nc.directional_cdnv(stats, look))
    assert with_x64[~np.eye(3, dtype=bool)].mean() <= 4 * directional


def pair_errors_in_double(stats, look, shots):
    import jax

    with jax.enable_x64(True):
        double = [jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), x) for x in (stats, look)]
        return np.asarray(pair_errors(geometry(double[0]), double[1], shots))


def test_what_cannot_be_certified_is_refused(rng):
    _, _, stats, look = seen(rng, 4.0)
    with pytest.raises(UserError, match="shots=0"):
        few_shot_certificate(stats, look, shots=0)


def test_scores_of_what_lies_outside(rng):
    features, _, stats, _ = seen(rng, 6.0)
    middle, means = features.reshape(4, 60, 8).mean(1).mean(0), features.reshape(4, 60, 8).mean(1)
    outside = rng.normal(size=(50, 8)).astype(np.float32) * 4 + middle
    centred = (means - middle).astype(float)
    basis = np.linalg.svd(centred, full_matrices=False)[2][:3]
    h = outside.astype(float) - middle
    share = np.linalg.norm(h @ basis.T, axis=1) / np.linalg.norm(h, axis=1)
    np.testing.assert_allclose(neco(stats, jnp.asarray(outside)), share, rtol=1e-3)
    weight, bias = rng.normal(size=(4, 8)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    chosen = weight[(outside @ weight.T + bias).argmax(1)]
    cosine = (chosen * h).sum(1) / np.linalg.norm(chosen, axis=1) / np.linalg.norm(h, axis=1)
    found = nci(stats, jnp.asarray(outside), (weight, bias), alpha=0.1)
    np.testing.assert_allclose(found, cosine + 0.1 * abs(outside).sum(1), rtol=1e-3, atol=1e-4)
    nearest = centred[((outside[:, None] - means[None]) ** 2).sum(2).argmin(1)]
    cosine = (nearest * h).sum(1) / np.linalg.norm(nearest, axis=1) / np.linalg.norm(h, axis=1)
    np.testing.assert_allclose(nci(stats, jnp.asarray(outside)), cosine, rtol=1e-3, atol=1e-4)
    assert auroc(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)
    assert auroc(np.asarray(nci(stats, jnp.asarray(features))), np.asarray(nci(stats, jnp.asarray(outside)))) > 0.9


def test_fewer_ways_err_less_and_the_bound_holds_for_them():
    rng = np.random.default_rng(5)
    features, labels, stats, look = seen(rng, 6.0, k=6)
    bounds = [float(few_shot_certificate(stats, look, shots=3, ways=w)) for w in (2, 3, 6)]
    assert bounds == sorted(bounds)
    assert bounds[-1] == float(few_shot_certificate(stats, look, shots=3))
    wrong = []
    for _ in range(300):
        pair = rng.choice(6, 2, replace=False)
        rows = np.isin(labels, pair)
        wrong.append(error(features[rows], np.searchsorted(np.sort(pair), labels[rows]), 3, rng, draws=2))
    assert np.mean(wrong) <= bounds[0]
    with pytest.raises(UserError, match="ways=1"):
        few_shot_certificate(stats, look, shots=3, ways=1)
