"""Few-shot episodes: index sets that are a function of their numbers, and classifiers against scikit-learn's."""

import functools
import operator

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import Ridge

from ncjax.core.errors import UserError
from ncjax.transfer import episodes


def data(rng, k=6, n=12, d=20):
    labels = rng.permutation(np.repeat(np.arange(k), n)).astype(np.int32)
    return (rng.normal(size=(k, d))[labels] + rng.normal(size=(k * n, d))).astype(np.float32), labels


def test_episodes_are_a_function_of_seed_and_counts_and_keep_apart_what_is_tried(rng):
    _, labels = data(rng)
    asked = {"ways": 3, "shots": 2, "queries": 4, "count": 40}
    drawn = episodes.draw(labels, 6, **asked, seed=0)
    assert drawn.support.shape == (40, 3, 2)
    assert drawn.query.shape == (40, 3, 4)
    assert drawn.digest() == episodes.draw(labels, 6, **asked, seed=0).digest()
    assert drawn.digest() != episodes.draw(labels, 6, **asked, seed=1).digest()
    for support, query in zip(*drawn, strict=True):
        both = np.concatenate([support, query], axis=1)
        assert len(np.unique(both)) == both.size
        assert (labels[both] == labels[both[:, :1]]).all()
        assert len(np.unique(labels[both[:, 0]])) == 3
    assert len({tuple(sorted(labels[s[:, 0]])) for s in drawn.support}) > 5  # not always the same classes
    with pytest.raises(UserError, match="7 classes: there are 6"):
        episodes.draw(labels, 6, **{**asked, "ways": 7}, seed=0)
    with pytest.raises(UserError, match="has 12"):
        episodes.draw(labels, 6, **{**asked, "queries": 11}, seed=0)


def test_classes_split_by_a_seed():
    parts = episodes.split_classes(100, novel=20, val=16, seed=0)
    assert [len(parts[name]) for name in ("base", "val", "novel")] == [64, 16, 20]
    assert sorted(functools.reduce(operator.iadd, parts.values(), [])) == list(range(100))
    assert parts != episodes.split_classes(100, novel=20, val=16, seed=1)
    with pytest.raises(UserError, match="none for the base"):
        episodes.split_classes(36, novel=20, val=16, seed=0)


def test_accuracies_are_those_of_each_episode_alone(rng):
    x, labels = data(rng)
    drawn = episodes.draw(labels, 6, ways=4, shots=3, queries=5, count=5, seed=0)
    found = episodes.accuracies(jnp.asarray(x), drawn.support, drawn.query, jnp.float32(0), name="nearest_mean")
    for support, query, accuracy in zip(*drawn, np.asarray(found), strict=True):
        means = x[support].mean(1)
        apart = ((x[query][:, :, None] - means) ** 2).sum(-1)
        assert accuracy == pytest.approx((apart.argmin(-1) == np.arange(4)[:, None]).mean())


def test_ridge_is_scikit_learns(rng):
    x, labels = data(rng, d=30)
    drawn = episodes.draw(labels, 6, ways=4, shots=3, queries=5, count=1, seed=0)
    support, query = x[drawn.support[0]], x[drawn.query[0]].reshape(-1, 30)
    flat, y = support.reshape(-1, 30), np.repeat(np.eye(4), 3, axis=0)
    theirs = Ridge(alpha=12 * 0.1, solver="svd").fit(flat.astype(np.float64), y).predict(query) - 0.25
    np.testing.assert_allclose(episodes.ridge(support, query, 0.1), theirs, atol=2e-5)


@pytest.mark.parametrize("strength", episodes.CLASSIFIERS["logistic"].strengths)
@pytest.mark.parametrize("shots", [1, 5])
def test_logistic_regression_is_solved(rng, shots, strength):
    """Its gradient in float64, at the weights that its scores of the support imply, is next to nothing."""
    x, labels = data(rng, d=40)
    x = episodes.normalised(x, x.mean(0))
    drawn = episodes.draw(labels, 6, ways=5, shots=shots, queries=3, count=1, seed=0)
    support = x[drawn.support[0]]
    flat = support.reshape(-1, 40)
    scores = np.asarray(episodes.logistic(support, flat, strength), np.float64)
    weight = np.linalg.lstsq((flat - flat.mean(0)).astype(np.float64), scores, rcond=1e-4)[0]
    error = np.exp(log_softmax(scores, axis=1)) - np.repeat(np.eye(5), shots, axis=0)
    gradient = (flat - flat.mean(0)).T @ error / len(flat) + strength * weight
    start = (flat - flat.mean(0)).T @ (0.2 - np.repeat(np.eye(5), shots, axis=0)) / len(flat)
    assert np.linalg.norm(gradient) < 2e-3 * np.linalg.norm(start)


def test_cosine_does_not_care_for_length(rng):
    x, labels = data(rng)
    drawn = episodes.draw(labels, 6, ways=4, shots=1, queries=5, count=1, seed=0)
    support, query = x[drawn.support[0]], x[drawn.query[0]].reshape(-1, 20)
    np.testing.assert_allclose(episodes.cosine(support * 3, query, 0.0), episodes.cosine(support, query, 0.0), rtol=1e-5)
