"""Which public backbone transfers best, and does collapse on the target's training images say so?

Experiments E1 and E3, claims C1, C10 and C12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from ncjax.core.roles import SCORE
from ncjax.core.values import COUNT, NATURAL, SHARE, Items, Range
from ncjax.data.readers import read
from ncjax.evidence import intervals, predictors
from ncjax.evidence.claims import verdict
from ncjax.evidence.correlation import Correlation, mean_of, spearman
from ncjax.evidence.paper import Evidence
from ncjax.networks.load import Init, backbone_digest, load
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.predictors import correlation, correlations, stands
from ncjax.report.sections import Section, file_stem, short_names
from ncjax.report.tables import Row, Table, number, of_rows, percent, text, trusted, whole, wilson
from ncjax.runs.run import Run
from ncjax.scores.score import Score, all_named, complete_cells
from ncjax.transfer.scored import Sizes, data_of, one_each, pair_by_layer

PREDICTORS = [
    "scores.nc1",
    "scores.nc1_over_floor",
    "scores.cdnv",
    "scores.numerical_rank",
    "scores.parameters",
    "scores.width",
    "scores.source_accuracy",
    "scores.knn",
    "scores.train_accuracy",
]
CLAIMS = {
    "C1": ("across backbones, a lower NC1 on the target's training images goes with a better probe", "nc1"),
    "C12, CDNV": ("so does a lower CDNV", "cdnv"),
    "C12, rank": ("so does a lower numerical rank", "numerical_rank"),
}


def pool_of(
    cells: dict[str, dict[str, dict[str, Any]]], wanted: dict[str, Score], families: dict[str, str]
) -> predictors.Pool:
    """The predictors and the probe's test accuracy.

    Args:
      cells: {target: {backbone: what `pair_by_layer` found}}.
      wanted: the predictors.
      families: of every backbone.
    """
    return predictors.pool(
        {t: {b: c["predictors"] for b, c in many.items()} for t, many in cells.items()},
        {t: {b: c["test_accuracy"] for b, c in many.items()} for t, many in cells.items()},
        families,
        {s.name: s.sign for s in wanted.values()},
    )


def over_layers(cells: dict[str, dict[str, dict[str, Any]]], families: dict[str, str]) -> dict[str, Correlation | None]:
    """C10: {target, "mean": mean over backbones of Spearman's correlation of NC1 (train) and probe accuracy over layers}.

    Layers narrower than K - 1 are left out: the rank of their NC1 is their width, so that it grows with the width. A
    backbone with fewer than four comparable probed layers has no correlation.
    """
    each: dict[str, dict[str, float]] = {}
    for target, many in cells.items():
        for backbone, cell in many.items():
            points = [
                (e["train"]["nc1"], e["probe"]["test"])
                for e in cell["layers"].values()
                if "probe" in e and e["train"]["nc1"] is not None and "narrow" not in e["train"]["flags"]
            ]
            if len(points) > 3:
                each.setdefault(target, {})[backbone] = spearman(*zip(*points, strict=True))
    names, owner = list(families), list(families.values())
    out = {t: mean_of([each.get(t, {}).get(b, np.nan) for b in names], families=owner) for t in cells}
    means = []
    for b in names:
        found = [many[b] for many in each.values() if np.isfinite(many.get(b, np.nan))]
        means.append(np.mean(found) if found else np.nan)
    return {**out, "mean": mean_of(means, families=owner)}


def verdicts(found: dict[str, dict[str, Any]], layers: Correlation | None, weakest: float) -> dict[str, str]:
    """A verdict for each claim whose predictor was asked for, and for C10."""
    out = {
        claim: verdict(found[name]["spearman"]["mean"], weakest=weakest)
        for claim, (_, name) in CLAIMS.items()
        if name in found
    }
    return {**out, "C10": verdict(layers, weakest=weakest)}


def _show(
    run: Run,
    cells: dict[str, dict[str, dict[str, Any]]],
    found: dict[str, dict[str, Any]],
    layers: dict[str, Correlation | None],
    claims: dict[str, str],
    labels: dict[str, str],
) -> None:
    words, targets = intervals.signed, list(cells)
    run.table(
        "Spearman's correlation with the probe's test accuracy, over backbones",
        ["predictor", "mean", *targets],
        [
            [labels[name], words(both["spearman"]["mean"]), *(words(both["spearman"][t]) for t in targets)]
            for name, both in found.items()
        ]
        + [["over a network's layers: NC1 (C10)", words(layers["mean"]), *(words(layers[t]) for t in targets)]],
    )
    run.say("  ".join(f"{claim}: {word}" for claim, word in claims.items()))


def run(
    *,
    run: Run,
    backbones: Annotated[list[str], Items(least=2, distinct=True)],
    targets: Annotated[list[str], Items(least=1, distinct=True)],
    source_accuracy: Annotated[list[float], SHARE] = [],
    families: list[str] = [],
    sizes: Sizes = Sizes(),
    scores: Annotated[list[str], SCORE, Items(least=1, distinct=True)] = PREDICTORS,
    probe_layers: Annotated[int, NATURAL] = 6,
    batch_size: Annotated[int, COUNT] = 64,
    weakest: Annotated[float, Range("from -1 to 0, a correlation", -1, 0)] = -0.3,
) -> dict[str, Any]:
    """Every backbone on every target, features extracted once a pair; a stopped run goes on with the pair under way.

    Args:
      run: where it happens.
      backbones: networks as for `networks.load.Init.init`.
      targets: data sets as for `data.Data.data`.
      source_accuracy: of each backbone on its own task, 0 where unknown; a control. Empty for none.
      families: of each backbone, any names: networks of one family are alike, and intervals are over families. Empty for
        one each.
      sizes: how much of each target.
      scores: what may predict transfer, see `ncjax.scores.score`.
      probe_layers: layers with a probe, at equal distances, those at least as wide as classes - 1 first; 0 for all.
      batch_size: images a step.
      weakest: the rule for verdicts, fixed before the run: a claim of a negative correlation is "supported" if the 95 %
        interval of its mean over targets is below 0, "contradicted" if it is above 0, "not supported" if it is above this,
        else "undecided".

    Raises:
      UserError: fewer than two backbones, no target, or another number of source accuracies or families than of backbones.
    """
    one_each(backbones, source_accuracy=source_accuracy, families=families)
    wanted = all_named(scores)
    for init in backbones:  # all of them, before an hour is spent on the first
        network = load(Init(init))
        run.say(
            f"backbone {init}: {network.card.model}, {len(network.model.backbone)} blocks, images of "
            f"{network.card.image_shape[0]}"
        )
    counts = {target: len(read(target).class_names) for target in targets}
    cells: dict[str, dict[str, dict[str, Any]]] = {target: {} for target in targets}
    for init, known in zip(backbones, source_accuracy or [0.0] * len(backbones), strict=True):
        network = load(Init(init))
        digest = backbone_digest(network)
        for target, count in counts.items():
            dataset = data_of(network.card, target, count, sizes)
            key = {
                "backbone": init,
                "target": target,
                "base": digest,
                "images": dataset.identity(),
                "probes": probe_layers,
                "scores": ",".join(wanted),
                "source": known,
            }
            cell = run.once(
                key,
                lambda held=(network, dataset), known=known: pair_by_layer(
                    run, *held, wanted, batch_size=batch_size, probe_layers=probe_layers, source_accuracy=known
                ),
            )
            cells[target][init] = cell
            run.say(
                f"{sum(map(len, cells.values())):>3}/{len(backbones) * len(targets)}  {init} on {target}: probe "
                f"{100 * cell['test_accuracy']:.1f} %, "
                + ", ".join(f"{m} {x:.3g}" for m in list(wanted)[:2] if (x := cell["predictors"][m]) is not None)
            )
    labels = {s.name: s.label for s in wanted.values()}
    complete_cells(wanted, cells)
    owner = dict(zip(backbones, families or backbones, strict=True))
    pool = pool_of(cells, wanted, owner)
    found, layers = predictors.summary(pool), over_layers(cells, owner)
    claims = verdicts(found, layers["mean"], weakest)
    _show(run, cells, found, layers, claims, labels)
    seen = {t: next(iter(many.values()))["data"] for t, many in cells.items()}
    return {
        "data": {f"{t} {split}": x for t, splits in seen.items() for split, x in splits.items()},
        "cells": cells,
        "correlations": found,
        "by_chance": predictors.best_by_chance(pool),
        "layers": layers,
        "verdicts": claims,
        "predictors": labels,
        "claims": {**{k: v[0] for k, v in CLAIMS.items()}, "C10": "across the layers of one network, the same"},
        "families": owner,
    }


def _scatter(run: Finished, stem: str) -> figures.Drawn:
    """Test accuracy of the probe over NC1 on train, a panel a target, with intervals of both."""
    cells, names = run.results["cells"], short_names(run)
    with figures.panels(len(cells), 3, 2.8) as (figure, axes):
        for axis, (target, many) in zip(axes, cells.items(), strict=True):
            for i, (backbone, cell) in enumerate(many.items()):
                entry = cell["layers"][cell["penultimate"]]["train"]
                x, y = entry["nc1"], cell["test_accuracy"]
                if x is None:
                    continue
                low, high = (x if v is None else v for v in (entry["nc1_low"], entry["nc1_high"]))
                below, above = wilson(y, cell["data"]["test"]["size"])
                axis.errorbar(
                    [x],
                    [100 * y],
                    [[100 * (y - below)], [100 * (above - y)]],
                    [[max(x - low, 0)], [max(high - x, 0)]],
                    ms=4,
                    lw=0.8,
                    fmt="osD^"[i // len(figures.COLOURS) % 4],
                    color=figures.COLOURS[i % len(figures.COLOURS)],
                    label=names[backbone],
                )
            figures.log_axis(axis, "x")
            axis.set(title=target, xlabel="NC1, train")
        axes[0].set_ylabel("probe, test accuracy, %")
        figures.legend_below(figure, axes[0])
        return figures.Drawn(f"scatter-{stem}", figure)


def _layers(run: Finished, stem: str) -> figures.Drawn:
    """NC1 over its floor, train, over depth: a panel a target, a line a backbone."""
    cells, names = run.results["cells"], short_names(run)
    with figures.panels(len(cells), 3, 2.8) as (figure, axes):
        for axis, many in zip(axes, cells.values(), strict=True):
            for i, (backbone, cell) in enumerate(many.items()):
                values = [
                    np.nan if e["train"]["nc1_over_floor"] is None else e["train"]["nc1_over_floor"]
                    for e in cell["layers"].values()
                ]
                axis.plot(
                    np.linspace(0, 1, len(values)),
                    values,
                    ("-", "--", ":")[i // len(figures.COLOURS) % 3],
                    lw=1,
                    color=figures.COLOURS[i % len(figures.COLOURS)],
                    label=names[backbone],
                )
            axis.set(xlabel="depth")
        for axis, target in zip(axes, cells, strict=True):
            axis.set_title(target)
        axes[0].set_ylabel("NC1 / floor, train")
        figures.legend_below(figure, axes[0])
        return figures.Drawn(f"depth-{stem}", figure)


SHARES = {"knn", "train_accuracy", "probe_accuracy", "source_accuracy"}  # predictors in per cent


def _table(run: Finished, stem: str) -> Table:
    c, names = run.config, short_names(run)
    caption = (
        f"Every backbone on every target, at the penultimate layer. At most {c['train_images']} "
        f"training, {c['val_images']} validation and {c['test_images']} test images of a target; regularisation of "
        "the probe chosen on validation."
    )
    rows = [
        [("target, backbone", text(f"{target}, {names[backbone]}")), *_row(run, target, backbone)]
        for target, many in run.results["cells"].items()
        for backbone in many
    ]
    return of_rows(f"pairs_{stem}", caption, rows)


def _row(run: Finished, target: str, backbone: str) -> Row:
    cell, at = run.results["cells"][target][backbone], f"{run.name}/results.json: cells.{target}.{backbone}."
    last, labels = cell["penultimate"], run.results["predictors"]
    entry, found = cell["layers"][last]["train"], cell["predictors"]
    return [
        ("pixels", whole(cell["image_size"], at + "image_size")),
        ("probe test % [95 %]", percent(cell["test_accuracy"], at + "test_accuracy", cell["data"]["test"]["size"])),
        ("NC1 train [95 %]", trusted(entry, "nc1", f"{at}layers.{last}.train.nc1")),
        ("CDNV train [95 %]", trusted(entry, "cdnv", f"{at}layers.{last}.train.cdnv")),
        *(
            (label + (" %" if n in SHARES else ""), (percent if n in SHARES else number)(found[n], f"{at}predictors.{n}"))
            for n, label in labels.items()
            if n not in ("nc1", "cdnv")
        ),
    ]


def _correlations(run: Finished, stem: str, how: str, title: str) -> Table:
    r, at = run.results, f"{run.name}/results.json: "
    caption = (
        f"{title} of each predictor with the probe's test accuracy over backbones. Over layers: mean over backbones of the "
        "correlation of NC1 with the probes' accuracy over the layers at least as wide as classes - 1. NC1 of narrower "
        "penultimate layers is left out."
    )
    predicted, targets = r["correlations"], list(r["cells"])
    found = correlations(f"{how}_{stem}", caption, predicted, how, r["predictors"], targets, f"{at}correlations.")
    if how == "spearman":
        over = [correlation(r["layers"][t], f"{at}layers.{t}") for t in ("mean", *r["cells"])]
        found.rows.append([text("over a network's layers: NC1"), *over])
    return found


def _correlation(run: Finished, claim: str) -> list[Any] | None:
    """The mean Spearman correlation that a claim is judged by."""
    r = run.results
    return r["layers"]["mean"] if claim == "C10" else r["correlations"][CLAIMS[claim][1]]["spearman"]["mean"]


def _verdict(run: Finished, claim: str, word: str) -> str:
    shown = correlation(_correlation(run, claim), "").text
    return f"{claim}, {run.results['claims'][claim]}: {word} (mean Spearman correlation {shown})."


def _stands(run: Finished, stem: str) -> list[Table]:
    """Whether correlations stand; nothing for records of before that was asked."""
    r = run.results
    if "by_chance" not in r:
        return []
    at = f"{run.name}/results.json: correlations."
    return [stands(f"stands_{stem}", r["correlations"], r["predictors"], r["by_chance"], short_names(run), at)]


def _which(claim: str) -> str:
    """`, CDNV` of `C12, CDNV`."""
    return "".join(claim.partition(",")[1:])


def claims(runs: Sequence[Finished]) -> list[Evidence]:
    """What finished runs say of the paper's claims."""
    return [
        Evidence(
            claim.partition(",")[0],
            f"{len(run.config['backbones'])} networks, {len(run.config['targets'])} targets{_which(claim)}",
            f"Spearman {correlation(_correlation(run, claim), '').text}",
            word,
        )
        for run in runs
        for claim, word in run.results["verdicts"].items()
    ]


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run of the study."""
    sections = []
    for run in runs:
        r, stem = run.results, file_stem("on", run.name)
        weakest = run.config["weakest"]
        judged = [
            [
                text(claim),
                text(r["claims"][claim]),
                correlation(_correlation(run, claim), f"{run.name}/results.json"),
                text(word),
            ]
            for claim, word in r["verdicts"].items()
        ]
        rule = (
            "The rule, fixed before the run: supported if the interval of the mean Spearman correlation is below 0, "
            f"contradicted if it is above 0, not supported if it is above {weakest:g}, else undecided. Intervals: 95 %, "
            "jackknife over families of backbones."
        )
        verdict = Table(f"verdicts_{stem}", rule, ["claim", "says", "Spearman [95 %]", "verdict"], judged)
        by_target = [f"{t} {c[0]:+.2f}" for t, c in r["layers"].items() if t != "mean" and c is not None]
        intro = (
            f"C10 by target, where there are layers enough to compare: {', '.join(by_target) or 'nowhere'}. "
            "A low NC1 on the training images implies that they are nearly separable, so part of any correlation is "
            "no discovery: read it beside the probe's training accuracy, kNN, the network's size and its source "
            "accuracy, which predict too. NC1 of one target compares across backbones (the same images), not across "
            "targets."
        )
        title = "Which backbone transfers, and does collapse say so?" + (f" ({run.name})" if len(runs) > 1 else "")
        sections.append(
            Section(
                title,
                intro,
                [
                    (
                        "Test accuracy of the probe over NC1 on the target's training images, 95 % intervals of both.",
                        _scatter(run, stem),
                    ),
                    ("NC1 over its floor along each network, from the first block to the last.", _layers(run, stem)),
                ],
                [
                    verdict,
                    _correlations(run, stem, "spearman", "Spearman's correlation"),
                    _correlations(run, stem, "weighted_kendall", "Weighted Kendall correlation"),
                    *_stands(run, stem),
                    _table(run, stem),
                ],
                tuple(_verdict(run, claim, word) for claim, word in r["verdicts"].items()),
            )
        )
    return sections
