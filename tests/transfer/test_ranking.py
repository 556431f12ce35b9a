"""Scores and rules that choose a block, intervals over seeds, and sweeps that go on where they stopped."""

import math

import numpy as np
import pytest

from ncjax import config
from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.evidence import intervals
from ncjax.evidence.regret import regrets
from ncjax.models.resnet import resnet14
from ncjax.runs.run import Run
from ncjax.scores.condition_number import condition_number
from ncjax.scores.logme import logme
from ncjax.scores.moments import Moments
from ncjax.scores.relative_gradient_norm import relative_gradient_norm
from ncjax.scores.score import all_named, installed
from ncjax.transfer import grid_search, probe, ranking


def test_logme_is_the_largest_evidence(rng):
    x = rng.normal(size=(40, 5))
    y = (x[:, 0] + 0.3 * rng.normal(size=40) > 0).astype(int)

    def evidence(alpha, beta):
        total = 0.0
        for k in range(2):
            target = (y == k).astype(float)
            covariance = x @ x.T / alpha + np.eye(40) / beta
            _, logdet = np.linalg.slogdet(covariance)
            total -= 0.5 * (logdet + target @ np.linalg.solve(covariance, target) + 40 * math.log(2 * math.pi)) / 40
        return total / 2

    found = logme(Moments(x, y))
    grid = [evidence(a, b) for a in np.geomspace(0.5, 500, 40) for b in np.geomspace(0.5, 100, 40)]
    assert found == pytest.approx(max(grid), abs=0.02)
    assert found > logme(Moments(rng.normal(size=(40, 5)), y))


def test_block_scores_by_hand():
    assert relative_gradient_norm([np.array([3.0, 4.0])], [np.array([0.0, 10.0])]) == 0.5
    with pytest.raises(UserError, match="no parameters"):
        relative_gradient_norm([], [])
    assert condition_number([np.diag([8.0, 2.0]), np.diag([1.0, 1.0])]) == pytest.approx(2.0)
    assert trees.matrix_shape("query", (8, 2, 4)) == (8, 8)
    assert trees.matrix_shape("out", (2, 4, 8)) == trees.matrix_shape("conv1", (1, 2, 4, 8)) == (8, 8)
    assert ranking.tunnel_start([0.5, 0.94, 0.96, 1.0]) == 2


def test_rules_choose_and_order():
    model, names = resnet14(3), ("layer1.0", "layer2.0", "layer3.0")
    found = {
        b: {
            "nc1_over_floor": n,
            "cdnv": 1.0,
            "probe_accuracy": a,
            "logme": 0.0,
            "nc1": n,
            "relative_gradient_norm": None if i == 0 else i,
            "condition_number": 2.0,
        }
        for i, (b, n, a) in enumerate(zip(names, (None, 0.5, 0.2), (0.5, 0.9, 0.8), strict=True))
    }
    rules, scores = (
        ("nc1_over_floor", "probe_accuracy", "relative_gradient_norm", "key_layer"),
        all_named(ranking.BLOCK_SCORES),
    )
    chosen = {rule: ranking.choose(rule, found, model, scores) for rule in rules}
    assert tuple(chosen.values()) == ("layer3.0", "layer2.0", "layer3.0", "layer3.0")
    assert ranking.ordered("nc1_over_floor", found, model, scores) == ["layer3.0", "layer2.0", "layer1.0"]
    assert set(ranking.rules(scores)) == set(scores) | set(ranking.PLACES)
    assert set(ranking.BLOCK_SCORES) <= set(installed())
    assert ranking.candidates(model, None) == tuple(b for b in model.backbone if b != "stem")
    with pytest.raises(UserError, match="logme"):
        ranking.choose("logmee", found, model, scores)
    lost = regrets({"a": [0.9, 0.8], "b": [0.7, 0.9]}, {"x": ["b", "b"]})
    assert lost["best"] == "a"
    np.testing.assert_allclose(lost["by_seed"]["x"], [0.2, -0.1])
    np.testing.assert_allclose(lost["by_seed"]["random"], [0.1, -0.05])


def test_intervals_are_students():
    assert intervals.mean([1.0, 3.0]) == pytest.approx((2.0, 2.0 - 12.706205, 2.0 + 12.706205), rel=1e-6)
    assert intervals.paired([1.0, 2.0], [0.0, 1.0]) == (1.0, 1.0, 1.0)
    assert intervals.mean([1.0]).high == math.inf


def test_the_search_uses_its_seeds_and_validation_only(tmp_path):
    asked = []

    def cell(seed, lr, wd):
        asked.append((seed, lr))
        val = {0.1: 0.5, 0.3: 0.7, 1.0: 0.6}[lr]
        return {"seed": seed, "lr": lr, "weight_decay": wd, "val": val, "test": {0.1: 0.9, 0.3: 0.1, 1.0: 0.2}[lr]}

    found = grid_search.search(cell, grid_search.Search(lr_grid=[0.1, 0.3, 1.0], weight_decay_grid=[0.0]))
    assert found.hyper == {"lr": 0.3, "weight_decay": 0.0}
    assert found.widened == 0
    assert not found.at_end()
    assert [c["test"] for c in found.cells] == [0.1] * 3
    assert (1, 0.1) not in asked
    with pytest.raises(UserError, match="tune_seeds=0"):
        config.check("compare", {"init": "x", "tune_seeds": 0})
    run, counted = Run(tmp_path), []
    for _ in range(2):
        assert run.once({"seed": 0}, lambda: counted.append(1) or {"x": 1}) == {"x": 1}
    assert counted == [1]


@pytest.mark.parametrize(
    ("best", "tried", "widened", "at_end"),
    [
        (0.3, [0.1, 0.3, 0.9], 1, False),  # the end, until it lies inside
        (1e9, [0.1, 0.3, 0.9, 2.7], 2, True),  # ever on: twice at most, and said
        (1e-9, [0.0111111, 0.0333333, 0.1, 0.3], 2, True),
    ],
)
def test_a_grid_whose_best_is_at_its_end_goes_on_by_its_own_factor(best, tried, widened, at_end):
    def cell(seed, lr, wd):
        nearness = -abs(np.log(lr / best))
        return {"seed": seed, "lr": lr, "weight_decay": wd, "val": nearness, "test": 0.5, "diverged": lr > 2}

    options = grid_search.Search(lr_grid=[0.3, 0.1], weight_decay_grid=[0.0], seeds=2)
    found = grid_search.search(cell, options)
    assert (found.grid["lr"], found.widened, found.at_end()) == (tried, widened, at_end)
    assert (found.diverged, found.runs) == (2 * (best > 1), len(tried) + 1)
    assert ("widened" in found.describe()) == bool(widened)
    kept = grid_search.search(cell, options._replace(widen=0))
    assert kept.grid["lr"] == [0.1, 0.3]
    assert kept.widened == 0


def test_among_failures_learning_rates_go_on_at_both_ends():
    def cell(seed, lr, wd):
        learned = lr < 0.02  # all larger ones break the network, and validation is noise
        return {"seed": seed, "lr": lr, "weight_decay": wd, "val": 0.6 if learned else 0.1 + lr / 100, "test": 0.5} | {
            "train": 1.0 if learned else 0.2
        }

    options = grid_search.Search(lr_grid=[0.03, 0.1], weight_decay_grid=[0.0], seeds=2)
    found = grid_search.search(cell, options, largest=0.1)
    assert found.hyper["lr"] < 0.02
    assert [round(x, 4) for x in found.grid["lr"]] == [0.0027, 0.009, 0.03, 0.1, 0.3333]
    assert found.widened == 2
    # Who knows of no largest class goes on where the noise is best.
    assert grid_search.search(cell, options._replace(widen=1), largest=-1.0).grid["lr"][0] == 0.03


def test_weight_decay_widens_too_but_not_beyond_zero():
    def cell(seed, lr, wd):
        return {"seed": seed, "lr": lr, "weight_decay": wd, "val": -wd, "test": 0.5}

    search = grid_search.Search(lr_grid=[0.1], weight_decay_grid=[1e-3, 1e-2], seeds=1)
    assert grid_search.search(cell, search).grid["weight_decay"] == [1e-5, 1e-4, 1e-3, 1e-2]
    assert grid_search.search(cell, search._replace(weight_decay_grid=[0.0, 1e-2])).widened == 0


def test_lists_are_read_and_checked():
    assert config.read_value("shots", "5,20", list[int]) == [5, 20]
    assert config.read_value("methods", "tuning.last_k(k=1, layer=x),tuning.probe", list[str]) == [
        "tuning.last_k(k=1, layer=x)",
        "tuning.probe",
    ]
    with pytest.raises(UserError, match="expected int"):
        config.read_value("shots", "5,x", list[int])
    with pytest.raises(UserError, match="list of int"):
        config.check("compare", {"init": "x", "shots": [1.5]})


def test_the_sparse_probe_keeps_the_features_that_matter(rng):
    x = rng.normal(size=(240, 40)).astype(np.float32)
    y = (x[:, :2] @ np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])).argmax(1)
    found = probe.fit_sparse((x[:160], y[:160]), (x[160:], y[160:]), 3, fractions=(0.05,), l2_grid=(1e-2,))
    assert found.kept == 0.05
    assert set(np.flatnonzero(np.abs(found.weight).sum(0))) == {0, 1}
    assert found.val_accuracy > 0.9
    x[:, 7] = x[:, 0] + 0.05 * rng.normal(size=240)  # a twin needs no weight, but is nearest to having one
    found = probe.fit_sparse((x[:160], y[:160]), (x[160:], y[160:]), 3, fractions=(0.075,), l2_grid=(1e-2,))
    assert set(np.flatnonzero(np.abs(found.weight).sum(0))) == {0, 1, 7}
