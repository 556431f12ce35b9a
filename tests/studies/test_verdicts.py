"""The sentences at the head of a page follow from the numbers by rule."""

from pathlib import Path

import pytest

from ncjax.evidence.claims import compared
from ncjax.report.collect import Finished
from ncjax.report.page import _embedded
from ncjax.report.predictors import random_parts
from ncjax.report.sections import nc1_words, short_names
from ncjax.report.tables import in_percent, wilson
from ncjax.studies import choose_layer, compare, finetune, measure


def finished(name, study, config, results):
    return Finished(name, study, config, results, rows=[], seconds=1.0, environment={}, folder=Path())


@pytest.mark.parametrize(
    ("tuned", "wanted"),
    [
        (
            [0.90, 0.91, 0.92],
            "tune layer3.0: +10.0 [7.5, 12.5] points over the probe (81.0 [80.9, 81.1] %) for 8 % of the parameters",
        ),
        ([0.82, 0.75, 0.86], "stay with the probe: tuning layer3.0 gives +0.0"),
        ([0.60, 0.61, 0.62], "stay with the probe: tuning layer3.0 gives -20.0"),
    ],
)
def test_a_block_is_tuned_only_where_it_beats_the_probe_beyond_the_interval(tuned, wanted):
    probe = [0.8099, 0.8100, 0.8101]
    gain = compared(tuned, probe, margin=0.01)
    found = {"gain": gain._asdict(), "probe": {"seeds": probe, "test": (0.81, 0.809, 0.811)}}
    said = choose_layer._advice("layer3.0", 0.08, found)
    assert said.startswith(wanted)
    assert said.startswith("tune") == (gain.word == "ahead")
    if gain.word != "ahead":
        assert said.endswith(gain.word + " by 3 seeds" * (gain.word == "not told apart"))


def test_a_choice_without_tuning_promises_nothing():
    run = finished("r", "choose_layer", {"init": "a/net", "data": "d"}, {"rule": "logme", "choice": "layer2.0"})
    said = choose_layer._verdict(run)
    assert said.startswith("net on d: rule logme chooses layer2.0. Nothing was tuned")
    assert said.endswith("is not known: set tune=top.")


def _entry(val, test, share):
    return {
        "val": [val, val, val],
        "test": [sum(test) / len(test), min(test), max(test)],
        "share": share,
        "seeds": {"test": test},
    }


def test_methods_are_chosen_by_validation_and_compared_with_the_probe_by_seed():
    entries = {
        "tuning.probe": _entry(0.7, [0.70, 0.72, 0.71], 0.001),
        "tuning.scl_ft": _entry(0.8, [0.80, 0.83, 0.81], 0.08),
        "tuning.full_ft": _entry(0.79, [0.90, 0.91, 0.92], 1.0),  # best on test, which chooses nothing
    }
    run = finished("r", "compare", {"init": "net", "data": "d", "margin": 0.01}, {"table": {"5": entries}})
    said = compare._verdict(run, "5")
    assert said.startswith("net on d, 5 images per class: scl_ft is best on validation, test 81.3 [80.0, 83.0] % for 8 %")
    assert said.endswith("points over the probe, ahead.")


def _tuned(name, method, val, test, count=500):
    return finished(
        name,
        "finetune",
        {},
        {
            "method": method,
            "accuracy": {"val": val, "test": test},
            "data": {"test": {"size": count}},
            "share": 0.08,
            "readout": "readout",
            "chosen": {"test": {"readout": {"nc1": 0.5, "nc1_low": 0.4, "nc1_high": 0.6, "nc1_over_floor": 0.02}}},
        },
    )


@pytest.mark.parametrize(("probe", "word"), [(0.60, "behind."), (0.78, "not told apart by one seed."), (0.95, "ahead.")])
def test_fine_tuning_is_told_apart_from_the_probe_by_intervals(probe, word):
    scl, other = _tuned("a", "tuning.scl_ft", 0.8, 0.8), _tuned("b", "tuning.probe", 0.7, probe)
    assert (wilson(0.8, 500)[0] > wilson(probe, 500)[1]) == (word == "behind.")
    said = finetune._verdict([scl, other], "d")
    assert "a (scl_ft) is best on validation and reaches 80.00 [76.3, 83.3] % on test" in said
    assert "NC1 on test at the readout 0.5 [0.4, 0.6] (2 % of its no-signal floor)" in said
    assert said.endswith(word)
    assert "best" not in finetune._verdict([scl], "d")


def test_runs_of_other_networks_or_images_are_not_compared():
    scl, other = _tuned("a", "tuning.scl_ft", 0.8, 0.8), _tuned("b", "tuning.probe", 0.7, 0.6)
    other.config["init"] = "another"
    assert len(finetune._verdicts([scl, other], "d")) == 2
    assert not any("best" in said for said in finetune._verdicts([scl, other], "d"))
    del scl.results["accuracy"]["val"]
    other.config.clear()
    (said,) = finetune._verdicts([scl, other], "d")
    assert "nothing was held out for validation" in said


def test_shares_are_words_at_every_size():
    assert [in_percent(x) for x in (0.00065, 0.0827, 0.999, 1.0, 1.234, 12.5)] == [
        "0.065 %",
        "8.27 %",
        "99.9 %",
        "100 %",
        "123 %",
        "1250 %",
    ]


def test_layers_are_ranked_by_nc1_over_its_floor():
    def layer(over, probe):
        return {"test": {"nc1": over * 10, "nc1_over_floor": over}, "probe": {"test": probe}}

    results = {"penultimate": "c", "data": {"test": {"size": 400}}}
    layers = {"a": layer(0.5, 0.9), "b": layer(0.1, 0.89), "c": layer(0.2, 0.6)}
    said = measure._verdict(finished("r", "measure", {"data": "d"}, {**results, "layers": layers}))
    assert said.startswith(
        "r, d: most collapsed at b, NC1 on test 1 (10 % of its no-signal floor); a linear probe reads 60.00"
    )
    assert "most at a: 90.00" in said
    assert "not told apart" not in said
    layers["a"]["probe"]["test"] = 0.61
    layers["b"]["probe"]["test"] = 0.55
    assert "not told apart" in measure._verdict(finished("r", "measure", {"data": "d"}, {**results, "layers": layers}))


def test_words_without_a_floor_say_none():
    assert nc1_words({"nc1": 0.25}) == "0.25"


def test_a_file_in_the_page_is_the_file():
    import base64

    kind, _, text = _embedded("a,é\n", "text/csv").partition(",")
    assert kind == "data:text/csv;charset=utf-8;base64"
    assert base64.b64decode(text).decode() == "a,é\n"


@pytest.mark.parametrize(
    ("backbones", "short"),
    [
        (["weights/a.npz", "torchvision:resnet18"], ["a", "resnet18"]),
        (["runs/b/x-0/epoch_5", "runs/b/y-0/epoch_5"], ["x-0/epoch_5", "y-0/epoch_5"]),
        (["runs/x", "runs/x/x"], ["x", "x/x"]),
        (["a/x.npz", "b/x.npz"], ["a/x.npz", "b/x.npz"]),
    ],
)
def test_networks_are_named_as_short_as_they_stay_distinct(backbones, short):
    run = finished("a", "few_shot", {"backbones": backbones}, {})
    assert short_names(run) == dict(zip(backbones, short, strict=True))


def test_a_caption_names_scores_that_have_a_spread():
    labels = {"logme": "LogME", "nleep": "NLEEP"}
    said = " NLEEP: ± standard deviation over further seeds of its random part."
    assert random_parts([{"spreads": {"nleep": 0.1}}, {}], labels) == said
    assert random_parts([{}, {"spreads": {}}], labels) == ""
