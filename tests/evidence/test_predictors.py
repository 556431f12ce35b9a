"""What predicts transfer, held to leave-one-out, differences, chance and regret."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ncjax.evidence import predictors
from ncjax.evidence.correlation import over_families, weighted_kendall

NETWORKS = [f"n{i}" for i in range(8)]


def pool(columns, accuracy, signs=None, families=None):
    """A pool of predictors {name: {target: [8]}}."""
    values = {
        t: {n: {name: each[t][i] for name, each in columns.items()} for i, n in enumerate(NETWORKS)} for t in accuracy
    }
    truth = {t: dict(zip(NETWORKS, y, strict=True)) for t, y in accuracy.items()}
    owner = dict(zip(NETWORKS, families or NETWORKS, strict=True))
    return predictors.pool(values, truth, owner, signs or dict.fromkeys(columns, 1))


def test_the_correlation_of_differences_is_pearsons(rng):
    x, y = rng.normal(size=7), rng.normal(size=7)
    pairs = list(itertools.combinations(range(7), 2))
    dx, dy = (np.array([z[i] - z[j] for i, j in pairs]) for z in (x, y))
    wanted = dx @ dy / np.sqrt((dx @ dx) * (dy @ dy))
    assert predictors.differences(x, y) == pytest.approx(wanted)
    assert predictors.differences(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert np.isnan(predictors.differences(np.ones(7), y))


def test_a_scale_is_logarithmic_where_values_span_more_than_a_factor_of_ten():
    np.testing.assert_allclose(predictors.on_a_scale(np.array([1.0, 100.0, np.nan])), [0, np.log(100), np.nan])
    for x in (np.array([1.0, 9.0]), np.array([-1.0, 100.0])):
        np.testing.assert_array_equal(predictors.on_a_scale(x), x)


def test_one_network_can_be_all_there_is_to_a_correlation():
    y = np.array([0.5, 0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.9])
    x = np.array([4.0, 6.0, 5.0, 7.0, 3.0, 2.0, 1.0, 20.0])
    found = predictors.without_one(pool({"x": {"t": x}}, {"t": y}), "x")
    each = [weighted_kendall(np.delete(x, i), np.delete(y, i)) for i in range(8)]
    whole = weighted_kendall(x, y)
    assert found["low"] == [min(each), NETWORKS[int(np.argmin(each))]]
    assert found["high"] == [max(each), NETWORKS[int(np.argmax(each))]]
    assert found["flips"] == [n for n, value in zip(NETWORKS, each, strict=True) if value * whole <= 0]
    assert "n7" in found["flips"] or whole < 0
    assert predictors.without_one(pool({"x": {"t": np.ones(8)}}, {"t": y}), "x") is None


def test_the_best_of_many_is_judged_as_the_best_of_many(rng):
    y = rng.normal(size=8)
    noise = {f"p{i}": {"t": rng.normal(size=8)} for i in range(30)}
    found = predictors.best_by_chance(pool(noise, {"t": y}))
    assert found["of"] == 30
    assert found["p"] > 0.1  # though alone it would be far below
    assert stats.spearmanr(noise[found["best"]]["t"], y).pvalue < 0.1
    signs = {**dict.fromkeys(noise, 1), "good": -1}
    both = predictors.best_by_chance(pool({**noise, "good": {"t": -y}}, {"t": y}, signs))
    assert both["best"] == "good"
    assert both["value"] == pytest.approx(1)
    assert both["p"] < 0.05
    lacking = {"a": {"t": np.where(np.arange(8) == 0, np.nan, y)}, "b": {"t": y}}
    assert predictors.best_by_chance(pool(lacking, {"t": y}))["of"] == 1


def test_regret_counts_ties_and_what_has_no_value():
    y = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    tied, missing = np.array([0, 1, 1, 0, 0, 0, 0, 0.0]), np.where(y > 0.85, np.nan, y)
    found = predictors.summary(
        pool({"tied": {"t": tied}, "low": {"t": y}, "gone": {"t": missing}}, {"t": y}, {"tied": 1, "low": -1, "gone": 1})
    )
    assert found["tied"]["regret"]["by_target"]["t"] == pytest.approx(0.15)
    assert found["low"]["regret"]["by_target"]["t"] == pytest.approx(0.7)
    assert found["gone"]["regret"]["by_target"]["t"] == pytest.approx(0.1)
    assert found["gone"]["regret"]["missing"] == 1
    assert found["tied"]["regret"]["missing"] == 0


def test_a_predictor_against_a_control_is_paired_over_families(rng):
    y = {t: rng.normal(size=8) for t in "ab"}
    columns = {"good": y, "same": y, "bad": {t: -v for t, v in y.items()}}
    found = pool(columns, y)
    assert predictors.against(found, "good", "same")[:3] == (0, 0, 0)
    apart = predictors.against(found, "good", "bad")
    assert apart.value == pytest.approx(2)
    assert predictors.against(found, "good", "nothing") is None
    assert predictors.against(pool(columns, y, families=list("aabbccaa")), "good", "bad") is None  # three families


def test_the_rank_elsewhere_has_not_seen_the_target(rng):
    y = {"a": np.arange(8.0), "b": -np.arange(8.0)}
    found = predictors.with_rank_elsewhere(pool({"x": y}, y))
    np.testing.assert_array_equal(found.values["elsewhere"]["a"], np.arange(8, 0, -1))
    np.testing.assert_array_equal(found.values["elsewhere"]["b"], np.arange(1, 9))
    one = pool({"x": {"a": y["a"]}}, {"a": y["a"]})
    assert predictors.with_rank_elsewhere(one) is one


def test_an_interval_on_a_wider_scale_is_cut_there():
    values = np.array([1.9, 2.0, 1.8, 1.7, 2.0, 1.9])
    found = over_families(lambda rows: float(values[rows].mean()), np.ones(6, bool), None, scale=2.0)
    assert found.value == pytest.approx(values.mean())
    assert found.low < found.value < found.high <= 2
