"""What every score, metric and study must keep, those that are yet to come included: they are found, not listed."""

import inspect
import pkgutil

import numpy as np
import pytest

from ncjax import nc, studies
from ncjax.core.options import schema
from ncjax.nc.metric import INPUTS, asks_for, meaning
from ncjax.nc.report import ARRAYS, SCALARS
from ncjax.scores import score
from ncjax.scores.moments import Moments
from ncjax.studies import module_of

STUDIES = [m.name for m in pkgutil.iter_modules(studies.__path__) if not m.ispkg]


SMALL = {"scores.nc1_pca": "scores.nc1_pca(components=8)"}  # the features here have no more


def inputs(seed=0, apart=3.0):
    """Everything that a score may ask for, of features with signal."""
    rng = np.random.default_rng(seed)
    labels, val_labels = np.arange(60) % 3, np.arange(30) % 3
    features, val_features = (
        (apart * np.eye(3, 8)[y] + rng.normal(size=(len(y), 8))).astype(np.float32) for y in (labels, val_labels)
    )
    return {
        "features": features,
        "labels": labels,
        "num_classes": 3,
        "moments": Moments(features, labels),
        "source_logits": features @ rng.normal(size=(8, 5)),
        "val_features": val_features,
        "val_labels": val_labels,
        "report": nc.measure(features, labels),
        "train_accuracy": 0.9,
        "val_accuracy": 0.8,
        "gradient": [rng.normal(size=(8, 3))],
        "params": [rng.normal(size=(8, 3))],
        "kernels": [rng.normal(size=(8, 3))],
        "parameters": 24,
        "width": 8,
        "source_accuracy": 0.7,
    }


@pytest.mark.parametrize("name", score.installed())
def test_every_score_is_a_number_or_a_reason(name):
    each = score.named(SMALL.get(name, name))
    assert each.name == name.rpartition(".")[2]
    assert each.label
    assert inspect.getdoc(each.function)
    given = inputs()
    assert set(given) == set(score.INPUTS)
    if each.over_pool:
        parts = score.all_named([name])
        pool = {f"network {i}": score.applied(parts, inputs(seed=i))[0] for i in range(3)}
        assert all(np.isfinite(found[each.name]) for found in score.complete(parts, pool).values())
        return
    values, reasons = score.applied({each.name: each}, given)
    assert not reasons
    again, _ = score.applied({each.name: each}, inputs())
    assert isinstance(values[each.name], float)
    assert values == again
    values, reasons = score.applied({each.name: each}, {})
    assert values == {each.name: None}
    assert reasons[each.name].startswith("needs ")


@pytest.mark.parametrize("name", ["logme", "nc1", "cdnv", "knn"])
def test_scores_of_features_point_the_way_they_say(name):
    """Classes further apart score better."""
    each = score.named(f"scores.{name}")
    near, far = (score.applied({name: each}, inputs(apart=apart))[0][name] for apart in (0.3, 6.0))
    assert each.better(far) > each.better(near)


@pytest.mark.parametrize("name", [*SCALARS, *ARRAYS])
def test_every_metric_has_a_meaning_and_asks_for_what_exists(name):
    function = {**SCALARS, **ARRAYS}[name]
    assert set(asks_for(function)) <= set(INPUTS)
    text = meaning(function)
    assert 10 < len(text) < 124
    assert text != name


def test_every_metric_can_be_had():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (3 * np.eye(3, 8)[labels] + rng.normal(size=(60, 8))).astype(np.float32)
    classifier = (rng.normal(size=(3, 8)).astype(np.float32), np.zeros(3, np.float32))
    centres = nc.collect(features, labels)
    report = nc.measure(features, labels, classifier=classifier, centres=centres, outside=features + 1, spectrum=True)
    assert [name for name, value in report.values.items() if not np.isfinite(value)] == []
    assert set(report.arrays) == {*ARRAYS, "angles"}
    assert set(report.values) <= set(report.to_dict())


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_its_signature_and_its_section(name):
    module = module_of(name)
    parameters = inspect.signature(module.run).parameters
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    assert "run" in parameters
    assert schema(module.run)
    assert inspect.getdoc(module.run)
    assert name == "chain" or list(inspect.signature(module.section).parameters) == ["runs"]
