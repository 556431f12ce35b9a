"""Backbones beside one another: correlations, verdicts, and the study on small networks."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from ncjax import main
from ncjax.core import options
from ncjax.core.errors import UserError
from ncjax.core.roles import MODEL, resolve
from ncjax.evidence import claims, correlation
from ncjax.evidence.correlation import Correlation
from ncjax.networks import weights
from ncjax.studies import backbones
from ncjax.transfer import scored


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


def test_intervals_over_families_cover_where_those_over_networks_do_not():
    families, trials = np.array([0, 1, 2, 3, 4, 4, 4, 5, 6, 6, 6, 6]), 150
    rng, hits = np.random.default_rng(1), {True: 0, False: 0}

    def alike():
        return rng.normal(size=12) * np.sqrt(0.1) + rng.normal(size=7)[families] * np.sqrt(0.9)

    for _ in range(trials):
        pair = (alike(), alike())
        for by_family in hits:
            owner = [str(f) for f in families] if by_family else None
            found = correlation.over_networks([pair], correlation.spearman, families=owner)
            hits[by_family] += found.low <= 0 <= found.high
    assert hits[True] >= 0.9 * trials
    assert hits[False] < hits[True]


def test_an_interval_needs_networks_and_a_predictor_that_varies():
    y = np.arange(8.0)
    assert correlation.over_networks([(y[:5], y[:5])], correlation.spearman) is None
    assert correlation.over_networks([(np.ones(8), y)], correlation.spearman) is None
    assert correlation.over_networks([(np.where(y < 4, np.nan, y), y)], correlation.spearman) is None
    assert correlation.over_networks([(y, y)], correlation.spearman, families=list("aaabbbcc")) is None
    both = correlation.over_networks([(y, y), (y, -y)], correlation.spearman)
    assert both.value == pytest.approx(0)
    one_missing = correlation.over_networks(
        [(np.where(y == 3, np.nan, y), y)], correlation.spearman, families=list("abcdefgg")
    )
    assert (one_missing.count, one_missing.families) == (7, 6)
    assert correlation.mean_of([0.1, 0.2, 0.3, np.nan, 0.5, 0.4, 0.3]).count == 6
    assert correlation.mean_of([0.1, 0.2, np.nan]) is None


def test_the_jackknife_of_networks_each_its_own_family_is_the_textbooks():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=9), rng.normal(size=9)
    z = np.arctanh([stats.spearmanr(np.delete(x, i), np.delete(y, i)).statistic for i in range(9)])
    half = stats.t.ppf(0.975, 8) * np.sqrt(8 / 9 * np.square(z - z.mean()).sum())
    middle = np.arctanh(stats.spearmanr(x, y).statistic)
    low, high = correlation.jackknife(-0.98, [-1.0] * 5 + [-0.9])  # a mean of correlations: on its own scale, cut
    assert (low, high) == (-1, pytest.approx(-0.98 + stats.t.ppf(0.975, 5) * np.sqrt(5 / 6 * (5 / 6 * 0.01)), abs=1e-3))
    found = correlation.over_networks([(x, y)], correlation.spearman)
    assert found[1:3] == pytest.approx((np.tanh(middle - half), np.tanh(middle + half)))


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (Correlation(-0.6, -0.8, -0.1, 9, 9), "supported"),
        (Correlation(0.3, -0.1, 0.6, 9, 9), "not supported"),
        (Correlation(0.6, 0.1, 0.8, 9, 9), "contradicted"),
        (Correlation(-0.3, -0.7, 0.2, 9, 9), "undecided"),
        (None, "undecided"),
    ],
)
def test_verdicts_follow_the_rule(found, word):
    assert claims.verdict(found, weakest=-0.3) == word


def test_every_predictor_has_a_verdict_of_its_own():
    strong, other = Correlation(-0.6, -0.8, -0.1, 9, 9), Correlation(0.6, 0.1, 0.8, 9, 9)
    found = {name: {"spearman": {"mean": strong}} for name in ("nc1", "cdnv")} | {
        "numerical_rank": {"spearman": {"mean": other}}
    }
    words = {"C1": "supported", "C12, CDNV": "supported", "C12, rank": "contradicted", "C10": "undecided"}
    assert backbones.verdicts(found, None, -0.3) == words


def test_layers_narrower_than_the_classes_do_not_take_part():
    def cell(slope):
        layers = {
            f"l{i}": {"train": {"nc1": 5.0 - i, "flags": []}, "probe": {"test": slope * i}, "dim": 32} for i in range(4)
        }
        narrow = {f"n{i}": {"train": {"nc1": 0.1 * i, "flags": ["narrow"]}, "probe": {"test": 0.1 * i}} for i in range(6)}
        return {"layers": narrow | layers}

    cells = {"a": {f"b{i}": cell(0.1) for i in range(6)}, "b": {f"b{i}": cell(-0.1) for i in range(6)}}
    found = backbones.over_layers(cells, {f"b{i}": f"b{i}" for i in range(6)})
    assert (found["a"].value, found["b"].value) == (pytest.approx(-1), pytest.approx(1))
    assert found["mean"].value == pytest.approx(0)
    assert backbones.over_layers({"a": {"b0": {"layers": {}}}}, {"b0": "b0"}) == {"a": None, "mean": None}


@pytest.mark.parametrize(
    ("difference", "spread", "word"),
    [
        (0.0, 0.001, "level"),
        (0.004, 0.001, "level"),
        (0.03, 0.001, "ahead"),
        (-0.03, 0.001, "behind"),
        (0.01, 0.05, "not told apart"),
    ],
)
def test_level_is_a_margin_and_two_tests(difference, spread, word):
    others = np.array([0.5, 0.6, 0.7, 0.55])
    found = claims.compared(others + difference + spread * np.array([1, -1, 0.5, -0.5]), others, margin=0.01)
    assert found.word == word
    assert found.difference.mean == pytest.approx(difference)
    assert (found.p_level < 0.05) == (word == "level")


def test_layers_are_spaced_with_the_last_among_them():
    names = tuple("abcdefghij")
    assert scored.spaced(names, 0) == names
    assert scored.spaced(names, 3) == ("d", "g", "j")
    assert scored.spaced(names, 99) == names
    narrow = dict(zip(names, [True] * 7 + [False] * 3, strict=True))
    assert scored.to_probe(narrow, 2) == ("i", "j")
    assert scored.to_probe(narrow, 5) == ("d", "g", "h", "i", "j")
    assert scored.to_probe(narrow, 0) == names


def test_the_study_runs_resumes_and_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        network = resolve("models.resnet.resnet8(width=4)", MODEL)(num_classes=3)
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
    assert found["verdicts"] == dict.fromkeys(("C1", "C12, CDNV", "C12, rank", "C10"), "undecided")
    monkeypatch.setattr(backbones, "pair_by_layer", lambda *_, **__: pytest.fail("computed again"))
    (tmp_path / "run" / "results.json").unlink()
    assert main.main(argv) == 0
    capsys.readouterr()
    for change, words in (
        ("--config.backbones=[w0.npz]", "at least 2"),
        ("--config.source_accuracy=[0.5]", "source_accuracy"),
        ("--config.families=[resnet]", "families"),
        ("--config.backbones=[w0.npz,absent.npz]", "absent.npz"),
    ):
        assert main.main([*argv, change, "--workdir=other"]) == 2
        assert words in capsys.readouterr().err


def test_no_target_is_an_error():
    with pytest.raises(UserError, match="expected at least 1"):
        options.check(backbones.run, "backbones", {"backbones": ["a", "b"], "targets": []})
