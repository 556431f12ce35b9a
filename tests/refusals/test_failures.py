"""What failed does not look like a number: divergence, chance, dead features, rules that could not be followed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ncjax import main, nc
from ncjax.core.errors import UserError
from ncjax.core.files import to_json
from ncjax.report import tables
from ncjax.transfer import grid_search

SMOKE = "pretrain.py:smoke"


def test_a_grid_in_which_everything_diverged_is_refused_and_one_run_is_counted():
    def cell(seed, lr, wd, bad=(0.3, 1.0)):
        return {"lr": lr, "weight_decay": wd, "val": 0.0 if lr in bad else 0.5, "test": 0.1, "diverged": lr in bad}

    options = grid_search.Search(lr_grid=[0.3, 1.0])
    with pytest.raises(UserError, match="every run diverged"):
        grid_search.search(cell, options)
    found = grid_search.search(cell, options._replace(lr_grid=[0.1, 0.3]))
    assert found.hyper["lr"] < 0.3
    assert found.diverged == 1


@pytest.mark.parametrize(
    ("config", "overrides", "words"),
    [
        ("few_labels", ["lr_grid=[-0.1]"], "lr_grid"),
        ("few_labels", ["lr_grid=[]"], "lr_grid"),
        ("few_labels", ["lr_grid=[0.1,0.1]"], "stands there twice"),
        ("few_labels", ["shots=[3,3]"], "3 stands there twice"),
        ("few_labels", ["methods=[tuning.probe,tuning.probe]"], "'tuning.probe' stands there twice"),
        ("few_labels", ["steps=7", "rounds=2"], "rounds must divide steps"),
        ("few_labels", ["warmup_rounds=99"], "warmup_rounds"),
        ("few_labels", ["margin=2"], "margin"),
        ("choose_layer", ["rule=logmee"], "did you mean 'logme'"),
        ("choose_layer", ["method=tuning.full_ft"], "whatever the block"),
        ("choose_layer", ["method=tuning.probe"], "whatever the block"),
        ("choose_layer", ["tune=some"], "tune='some'"),
        ("choose_layer", ["scores=[scores.logme,scores.logme]"], "stands there twice"),
    ],
)
def test_what_cannot_end_well_is_refused_before_anything_is_computed(resnet_run, refused, config, overrides, words):
    said = refused(f"init={resnet_run}", *overrides, config=f"{config}.py:smoke")
    assert words in said


def test_all_runs_diverging_ends_the_sweep_with_a_line(resnet_run, tmp_path, capsys):
    argv = ["--config=configs/few_labels.py:smoke", f"--config.init={resnet_run}", "--config.lr_grid=[1e30]"]
    methods = "--config.methods=[tuning.full_ft]"
    assert main.main([*argv, methods, f"--workdir={tmp_path / 'w'}"]) == 2
    assert "every run diverged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("accuracy", "count", "largest", "marked"),
    [
        (0.1, 100, 0.1, True),
        (0.12, 100, 0.1, True),
        (0.3, 100, 0.1, False),
        (0.95, 100, 0.95, True),
        (0.5, 1000, 0.4, False),
    ],
)
def test_accuracy_at_the_level_of_the_largest_class_is_marked(accuracy, count, largest, marked):
    cell = tables.percent(accuracy, "", count, largest)
    assert cell.text.endswith("†") == marked
    assert cell.faint == marked
    interval = [accuracy, *tables.wilson(accuracy, count)]
    assert tables.spread(interval, "", largest).text.endswith("†") == marked
    assert "†" not in tables.percent(accuracy, "", count).text


def test_a_run_at_chance_says_so(tmp_path, capsys):
    argv = ["--config=configs/pretrain.py:smoke", "--config.epochs=1", "--config.lr=1e-9", f"--workdir={tmp_path / 'w'}"]
    assert main.main([*argv, "--config.model=models.mlp.mlp(depth=1,width=4)"]) == 0
    assert "no better than to say the largest class" in capsys.readouterr().out
    assert "†" in (tmp_path / "w" / "report.html").read_text()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_null_wherever_it_stands(value):
    assert (
        to_json({"a": value, "b": [1, value, (value, {"c": value})]}) == '{"a": null, "b": [1, null, [null, {"c": null}]]}'
    )


@pytest.mark.parametrize("value", [0.0, 1.0, -3e5])
@pytest.mark.parametrize("spectrum", [False, True])
def test_dead_features_are_a_flag_and_no_warning(value, spectrum):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = nc.measure(np.full((60, 4), value, np.float32), np.arange(60) % 3, spectrum=spectrum)
    assert "dead" in report.flags
    assert report.to_dict()["nc1"] is None
    alive = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    assert "dead" not in nc.measure(alive, np.arange(60) % 3).flags
