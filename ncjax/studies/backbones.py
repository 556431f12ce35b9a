"""Which public backbone transfers best, and does collapse on the target's training images say so?

Experiments E1 and E3, claims C1, C10 and C12.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from ncjax import nc
from ncjax.core import mesh, trees
from ncjax.core.errors import UserError
from ncjax.core.types import Model, PyTree
from ncjax.data import Dataset
from ncjax.data.readers import read
from ncjax.evidence import correlation
from ncjax.features import resume
from ncjax.networks import card as cards
from ncjax.runs.run import Run
from ncjax.transfer import layerwise

PREDICTORS = {
    "nc1": "NC1, train", "nc1_over_floor": "NC1 / floor, train", "cdnv": "CDNV, train",
    "numerical_rank": "numerical rank, train", "parameters": "parameters of the backbone", "width": "feature width",
    "source_accuracy": "source accuracy", "knn": "kNN, validation", "train_accuracy": "probe, train",
}
CLAIMS = {
    "C1": ("across backbones, a lower NC1 on the target's training images goes with a better probe", ("nc1",)),
    "C12": ("so do lower CDNV and numerical rank", ("cdnv", "numerical_rank")),
}


def spaced(layers: tuple[str, ...], count: int) -> tuple[str, ...]:
    """`count` layers at equal distances, the last one among them; all of them for 0."""
    if not count or count >= len(layers):
        return layers
    at = np.unique(np.round(np.linspace(0, len(layers) - 1, count + 1)[1:]).astype(int))
    return tuple(layers[i] for i in at)


def _data(card: cards.Card, data: str, count: int, *, train_images: int, val_images: int, test_images: int,
          largest: int) -> Dataset:
    """The target of `count` classes in the size that the network takes, `largest` at most."""
    size = largest if largest and card.image_shape[0] > largest else None
    return cards.load_data_for(card, data, {
        "image_size": size, "max_test": test_images or None,
        "n_per_class": max(2, train_images // count) if train_images else None,
        "val_per_class": max(1, val_images // count) if val_images else None})


def _neighbours(seen: dict[str, Any], layer: str, count: int) -> dict[str, float]:
    """Accuracy of a vote among the nearest training features by cosine, on validation and test."""
    train = seen["train"]
    model = KNeighborsClassifier(min(count, len(train.labels)), metric="cosine").fit(train.features[layer], train.labels)
    return {split: float(model.score(x.features[layer], x.labels)) for split, x in seen.items() if split != "train"}


def pair(run: Run, card: cards.Card, network: Model, variables: PyTree, dataset: Dataset, *, batch_size: int,
         neighbours: int, probe_layers: int) -> dict[str, Any]:
    """One backbone on one target: every layer's collapse, probes at some, neighbours at the last.

    Args:
      run: told how fast it goes.
      card, network, variables, dataset: the network and the target.
      batch_size: images a step.
      neighbours: that vote.
      probe_layers: layers with a probe, at equal distances; 0 for all.
    """
    count, last = len(dataset.class_names), network.penultimate
    with resume.kept(run.workdir, run.say, variables, dataset, batch_size=batch_size) as written:
        seen, reports = layerwise.extract(network, variables, dataset, mesh.make(), batch_size=batch_size, probes=True,
                                          classifier=None, scatter=None, run=run, written=written)
        found = layerwise.layers(seen, reports, count, probed=spaced(network.backbone, probe_layers))
        entry = found[last]
        return {
            "data": dataset.describe(), "network": card.fed(dataset).describe(),
            "image_size": dataset.image_shape[0], "penultimate": last,
            "layers": found, "knn": _neighbours(seen, last, neighbours), "test_accuracy": entry["probe"]["test"],
            "predictors": {
                "nc1": entry["train"]["nc1"], "nc1_over_floor": entry["train"]["nc1_over_floor"],
                "cdnv": entry["train"]["cdnv"], "numerical_rank": nc.numerical_rank(
                    seen["train"].features[last], seen["train"].labels),
                "parameters": trees.count(trees.only(variables, network.backbone)["params"]), "width": entry["dim"],
                "train_accuracy": entry["probe"]["train"],
            },
        }


def correlations(cells: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """{predictor: {"spearman" and "weighted_kendall": {target, "mean": correlation with test accuracy}}}.

    Args:
      cells: {target: {backbone: what `pair` found}}.
    """
    measures = {"spearman": correlation.spearman, "weighted_kendall": correlation.weighted_kendall}
    out: dict[str, dict[str, Any]] = {}
    for name in PREDICTORS:
        pairs = {target: ([np.nan if (v := c["predictors"].get(name)) is None else v for c in many.values()],
                          [c["test_accuracy"] for c in many.values()]) for target, many in cells.items()}
        out[name] = {how: {**{target: correlation.over_networks([p], measure) for target, p in pairs.items()},
                           "mean": correlation.over_networks(list(pairs.values()), measure)}
                     for how, measure in measures.items()}
    return out


def by_layers(cells: dict[str, dict[str, dict[str, Any]]]) -> correlation.Correlation | None:
    """C10: Spearman's correlation of NC1 (train) and probe accuracy over the layers of a network, averaged over targets.

    Returns:
      The mean over backbones with a defined one, its interval resampling them; None with fewer than
      `correlation.FEWEST`, or with fewer than four probed layers.
    """
    per_backbone: dict[str, list[float]] = {}
    for many in cells.values():
        for backbone, cell in many.items():
            points = [(e["train"]["nc1"], e["probe"]["test"]) for e in cell["layers"].values()
                      if "probe" in e and e["train"]["nc1"] is not None]
            if len(points) > 3:
                per_backbone.setdefault(backbone, []).append(correlation.spearman(*zip(*points, strict=True)))
    means = np.array([np.mean(x) for x in per_backbone.values()])  # NaN where every probe of a target is as good
    means = means[np.isfinite(means)]
    if len(means) < correlation.FEWEST:
        return None
    rng = np.random.default_rng(0)
    drawn = rng.choice(means, (correlation.DRAWS, len(means))).mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return correlation.Correlation(float(means.mean()), float(low), float(high), len(means))


def verdicts(found: dict[str, dict[str, Any]], layers: correlation.Correlation | None, weakest: float) -> dict[str, str]:
    """A verdict for each claim: that of its predictors if they agree, "undecided" if not."""
    out = {}
    for claim, (_, names) in CLAIMS.items():
        each = {correlation.verdict(found[n]["spearman"]["mean"], weakest=weakest) for n in names}
        out[claim] = each.pop() if len(each) == 1 else "undecided"
    return {**out, "C10": correlation.verdict(layers, weakest=weakest)}


def _show(run: Run, cells: dict[str, dict[str, dict[str, Any]]], found: dict[str, dict[str, Any]],
          layers: correlation.Correlation | None, claims: dict[str, str]) -> None:
    def words(c: correlation.Correlation | None) -> str:
        return "-" if c is None else f"{c.value:+.2f} [{c.low:+.2f}, {c.high:+.2f}]"

    targets = list(cells)
    run.table("Spearman's correlation with the probe's test accuracy, over backbones", ["predictor", "mean", *targets], [
        [PREDICTORS[name], words(both["spearman"]["mean"]), *(words(both["spearman"][t]) for t in targets)]
        for name, both in found.items()])
    run.say(f"over the layers of a network: NC1 and probe accuracy {words(layers)}")
    run.say("  ".join(f"{claim}: {word}" for claim, word in claims.items()))


def _check(backbones: list[str], targets: list[str], source_accuracy: list[float]) -> None:
    if len(set(backbones)) < len(backbones) or len(set(targets)) < len(targets):
        raise UserError("a backbone or a target is named twice")
    if len(backbones) < 2 or not targets:
        raise UserError(f"{len(backbones)} backbones and {len(targets)} targets: at least two and one")
    if source_accuracy and len(source_accuracy) != len(backbones):
        raise UserError(f"source_accuracy has {len(source_accuracy)} numbers for {len(backbones)} backbones; 0 where "
                        "unknown")


def run(
    *,
    run: Run,
    backbones: list[str],
    targets: list[str],
    source_accuracy: list[float] = [],  # noqa: B006
    train_images: int = 1500,
    val_images: int = 500,
    test_images: int = 1000,
    largest: int = 0,
    probe_layers: int = 6,
    neighbours: int = 5,
    batch_size: int = 64,
    weakest: float = -0.3,
) -> dict[str, Any]:
    """Every backbone on every target, features extracted once a pair; a stopped run goes on with the pair under way.

    Args:
      run: where it happens.
      backbones: networks as for `card.load`.
      targets: data sets as for `data.load`.
      source_accuracy: of each backbone on its own task, 0 where unknown; a control. Empty for none.
      train_images, val_images, test_images: of a target at most, equally many of each class; 0 for all.
      largest: image side; networks trained on larger images are fed this one, uncropped. 0 for each network's
        own.
      probe_layers: layers with a probe, at equal distances, the last among them; 0 for all.
      neighbours: that vote in kNN.
      batch_size: images a step.
      weakest: the rule for verdicts, fixed before the run: a claim of a negative correlation is "supported" if the 95 %
        interval of its mean over targets is below 0, "not supported" if it is above this, else "undecided".

    Raises:
      UserError: fewer than two backbones, no target, or another number of source accuracies than of backbones.
    """
    _check(backbones, targets, source_accuracy)
    for init in backbones:  # all of them, before an hour is spent on the first
        card, network, _ = cards.load(init)
        run.say(f"backbone {init}: {card.model}, {len(network.backbone)} blocks, images of {card.image_shape[0]}")
    counts = {target: len(read(target).class_names) for target in targets}
    sizes = dict(train_images=train_images, val_images=val_images, test_images=test_images, largest=largest)
    cells: dict[str, dict[str, dict[str, Any]]] = {target: {} for target in targets}
    for init, known in zip(backbones, source_accuracy or [0.0] * len(backbones), strict=True):
        card, network, variables = cards.load(init)
        digest = cards.backbone_digest(network, variables)
        for target, count in counts.items():
            dataset = _data(card, target, count, **sizes)
            key = {"backbone": init, "target": target, "base": digest, "images": dataset.identity(), "probes": probe_layers}
            cell = run.once(key, lambda seen=(card, network, variables, dataset): pair(
                run, *seen, batch_size=batch_size, neighbours=neighbours, probe_layers=probe_layers))
            cell["predictors"] |= {"source_accuracy": known or None, "knn": cell["knn"].get("val")}
            cells[target][init] = cell
            run.say(f"{sum(map(len, cells.values())):>3}/{len(backbones) * len(targets)}  {init} on {target}: probe "
                    f"{100 * cell['test_accuracy']:.1f} %, " + ", ".join(
                        f"{m} {x:.3g}" for m in ("nc1", "nc1_over_floor") if (x := cell["predictors"][m]) is not None))
    found, layers = correlations(cells), by_layers(cells)
    claims = verdicts(found, layers, weakest)
    _show(run, cells, found, layers, claims)
    seen = {t: next(iter(many.values()))["data"] for t, many in cells.items()}
    return {"data": {f"{t} {split}": x for t, splits in seen.items() for split, x in splits.items()}, "cells": cells,
            "correlations": found, "layers": layers, "verdicts": claims, "predictors": PREDICTORS,
            "claims": {**{k: v[0] for k, v in CLAIMS.items()}, "C10": "across the layers of one network, the same"}}
