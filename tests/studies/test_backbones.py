"""Backbones beside one another: correlations, verdicts, and the study on small networks."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from ncjax import main
from ncjax.core.errors import UserError
from ncjax.core.resolve import resolve
from ncjax.evidence import claims, correlation
from ncjax.evidence.correlation import Correlation
from ncjax.networks import weights
from ncjax.studies import backbones


def test_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=12), rng.normal(size=12)
    assert correlation.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert correlation.weighted_kendall(x, x) == pytest.approx(1)
    assert correlation.weighted_kendall(x, -x) == pytest.approx(-1)
    assert np.isnan(correlation.spearman(np.ones(5), y[:5]))


def test_weighted_kendall_cares_most_about_the_most_accurate():
    accuracy = np.arange(10.0)
    best_swapped, worst_swapped = accuracy.copy(), accuracy.copy()
    best_swapped[[8, 9]] = best_swapped[[9, 8]]
    worst_swapped[[0, 1]] = worst_swapped[[1, 0]]
    assert correlation.weighted_kendall(best_swapped, accuracy) < correlation.weighted_kendall(worst_swapped, accuracy)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, hits, trials = np.random.default_rng(1), 0, 60
    for _ in range(trials):
        x = rng.normal(size=12)
        found = correlation.over_networks([(x, rng.normal(size=12))], correlation.spearman, draws=200)
        hits += found.low <= 0 <= found.high
    assert hits >= 0.85 * trials


def test_an_interval_needs_networks_and_a_predictor_that_varies():
    y = np.arange(8.0)
    assert correlation.over_networks([(y[:5], y[:5])], correlation.spearman) is None
    assert correlation.over_networks([(np.ones(8), y)], correlation.spearman) is None
    assert correlation.over_networks([(np.where(y < 4, np.nan, y), y)], correlation.spearman) is None
    both = correlation.over_networks([(y, y), (y, -y)], correlation.spearman, draws=100)
    assert both.value == pytest.approx(0)
    one_missing = correlation.over_networks([(np.where(y == 3, np.nan, y), y)], correlation.spearman, draws=100)
    assert one_missing.count == 7


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (Correlation(-0.6, -0.8, -0.1, 9), "supported"),
        (Correlation(0.3, -0.1, 0.6, 9), "not supported"),
        (Correlation(-0.3, -0.7, 0.2, 9), "undecided"),
        (None, "undecided"),
    ],
)
def test_verdicts_follow_the_rule(found, word):
    assert claims.verdict(found, weakest=-0.3) == word


def test_a_claim_of_two_predictors_needs_both():
    strong, weak = Correlation(-0.6, -0.8, -0.1, 9), Correlation(-0.3, -0.7, 0.2, 9)
    found = {name: {"spearman": {"mean": strong}} for name in ("nc1", "cdnv", "numerical_rank")}
    assert backbones.verdicts(found, strong, -0.3) == {"C1": "supported", "C12": "supported", "C10": "supported"}
    found["numerical_rank"] = {"spearman": {"mean": weak}}
    assert backbones.verdicts(found, None, -0.3) == {"C1": "supported", "C12": "undecided", "C10": "undecided"}


def test_layers_are_spaced_with_the_last_among_them():
    names = tuple("abcdefghij")
    assert backbones.spaced(names, 0) == names
    assert backbones.spaced(names, 3) == ("d", "g", "j")
    assert backbones.spaced(names, 99) == names


def test_the_study_runs_resumes_and_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        network = resolve("models.resnet.resnet8(width=4)")(num_classes=3)
        variables = jax.jit(network.init, static_argnums=1)(jax.random.key(i), (32, 32, 3))
        np.savez(f"w{i}.npz", **weights.export(variables, network, "torchvision ResNet"))
    argv = [
        "--workdir=run",
        f"--config={Path(__file__).parents[2]}/configs/e1_backbones.py",
        "--config.backbones=[w0.npz,w1.npz]",
        "--config.targets=[embedded.digits]",
        "--config.train_images=40",
        "--config.val_images=20",
        "--config.test_images=40",
        "--config.probe_layers=2",
        "--config.largest=16",
    ]
    assert main.main(argv) == 0
    found = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    cell = found["cells"]["embedded.digits"]["w0.npz"]
    assert cell["image_size"] == 16
    assert [layer for layer, e in cell["layers"].items() if "probe" in e] == ["layer2.0", "layer3.0"]
    assert cell["network"]["weights"] == "w0.npz"
    assert found["verdicts"] == {"C1": "undecided", "C12": "undecided", "C10": "undecided"}
    monkeypatch.setattr(backbones, "pair", lambda *_, **__: pytest.fail("computed again"))
    (tmp_path / "run" / "results.json").unlink()
    assert main.main(argv) == 0
    capsys.readouterr()
    for change, words in (
        ("--config.backbones=[w0.npz]", "at least two"),
        ("--config.source_accuracy=[0.5]", "source_accuracy"),
        ("--config.backbones=[w0.npz,absent.npz]", "absent.npz"),
    ):
        assert main.main([*argv, change, "--workdir=other"]) == 2
        assert words in capsys.readouterr().err


def test_no_target_is_an_error():
    with pytest.raises(UserError, match="at least two and one"):
        backbones.run(run=None, backbones=["a", "b"], targets=[])
