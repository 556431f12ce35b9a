"""Does collapse on classes that a network has not seen say how well it tells them apart from a few examples?

Experiment E2, claims C11 and C12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.roles import SCORE
from ncjax.core.values import SHARE, Items, OneOf, Range
from ncjax.evidence import intervals, predictors
from ncjax.evidence.claims import verdict
from ncjax.evidence.paper import Evidence
from ncjax.networks.load import Init, backbone_digest, load
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.predictors import correlation, correlations, stands
from ncjax.report.sections import Section, file_stem, short_names
from ncjax.report.tables import Table, number, spread, text, trusted
from ncjax.runs.run import Run
from ncjax.scores.score import all_named, complete_cells
from ncjax.transfer import novel, scored
from ncjax.transfer.episodes import CLASSIFIERS
from ncjax.transfer.novel import Protocol

PREDICTORS = [
    "scores.nc1",
    "scores.nc1_over_floor",
    "scores.cdnv",
    "scores.directional_cdnv",
    "scores.numerical_rank",
    "scores.parameters",
    "scores.width",
    "scores.source_accuracy",
]
CLAIMS = {
    "C11": ("across networks, a lower NC1 on novel classes goes with a higher few-shot accuracy", "nc1"),
    "C11, CDNV": ("so does a lower CDNV", "cdnv"),
    "C11, directional CDNV": ("so does a lower directional CDNV", "directional_cdnv"),
    "C12, rank": ("so does a lower numerical rank", "numerical_rank"),
}


def accuracy_of(cell: dict[str, Any], classifier: str) -> float:
    """Mean over settings of a classifier's mean accuracy over episodes."""
    return float(np.mean([s["accuracy"][classifier][0] for s in cell["settings"].values()]))


def run(
    *,
    run: Run,
    backbones: Annotated[list[str], Items(least=2, distinct=True)],
    targets: Annotated[list[str], Items(least=1, distinct=True)],
    source_accuracy: Annotated[list[float], SHARE] = [],
    families: list[str] = [],
    scores: Annotated[list[str], SCORE, Items(least=1, distinct=True)] = PREDICTORS,
    protocol: Protocol = Protocol(),
    judged_by: Annotated[str, OneOf(*CLASSIFIERS)] = "logistic",
    weakest: Annotated[float, Range("from -1 to 0, a correlation", -1, 0)] = -0.3,
) -> dict[str, Any]:
    """Every network on every target's novel classes: features extracted once, the same episodes for all networks.

    Args:
      run: where it happens; a stopped run goes on with the pair under way.
      backbones: networks as for `networks.load.Init.init`.
      targets: data sets as for `data.Data.data`.
      source_accuracy: of each network on its own task, 0 where unknown; a control. Empty for none.
      families: of each network, any names: intervals are over families. Empty for one each.
      scores: what may predict few-shot accuracy, see `ncjax.scores.score`.
      protocol: classes, images and episodes.
      judged_by: the classifier whose accuracy, mean over settings, the verdicts are on.
      weakest: the rule for verdicts, fixed before the run, as in `studies.backbones`.

    Raises:
      UserError: a target has too few classes, or images of one; numbers of accuracies or families that differ.
    """
    scored.one_each(backbones, source_accuracy=source_accuracy, families=families)
    if judged_by not in protocol.classifiers:
        raise UserError(f"judged_by={judged_by}: it is not among classifiers={protocol.classifiers}")
    protocol.check()
    wanted = all_named(scores)
    for init in backbones:  # all of them, and every target, before an hour is spent on the first
        network = load(Init(init))
        run.say(f"backbone {init}: {network.card.model}, images of {network.card.image_shape[0]}")
    classes = {target: novel.data_of(network.card, target, protocol)[1] for target in targets}
    for target, parts in classes.items():
        run.say(f"target {target}: {', '.join(f'{len(x)} {name}' for name, x in parts.items())} classes")
    cells: dict[str, dict[str, dict[str, Any]]] = {target: {} for target in targets}
    for init, known in zip(backbones, source_accuracy or [0.0] * len(backbones), strict=True):
        network = load(Init(init))
        digest = backbone_digest(network)
        for target in targets:
            dataset, parts = novel.data_of(network.card, target, protocol)
            key = {"backbone": init, "target": target, "base": digest, "images": dataset.identity()}
            cell = run.once(
                {**key, "scores": ",".join(wanted), "source": known, "protocol": repr(protocol)},
                lambda held=(network, dataset, parts), known=known: novel.pair(run, *held, wanted, protocol, known),
            )
            cells[target][init] = cell
            done = sum(map(len, cells.values()))
            run.say(f"{done:>3}/{len(backbones) * len(targets)}  {init} on {target}: {_said(cell, judged_by)}")
    complete_cells(wanted, cells)
    owner = dict(zip(backbones, families or backbones, strict=True))
    pool = predictors.pool(
        {t: {b: c["predictors"] for b, c in many.items()} for t, many in cells.items()},
        {t: {b: accuracy_of(c, judged_by) for b, c in many.items()} for t, many in cells.items()},
        owner,
        {s.name: s.sign for s in wanted.values()},
    )
    summary = predictors.summary(pool)
    words = {
        claim: verdict(summary[name]["spearman"]["mean"], weakest=weakest)
        for claim, (_, name) in CLAIMS.items()
        if name in summary
    }
    _show(run, cells, protocol)
    run.say("  ".join(f"{claim}: {word}" for claim, word in words.items()))
    return {
        "classes": classes,
        "cells": cells,
        "correlations": summary,
        "by_chance": predictors.best_by_chance(pool),
        "by_setting": _by_setting(cells, owner, list(summary), judged_by, protocol),
        "verdicts": words,
        "claims": {k: v[0] for k, v in CLAIMS.items()},
        "predictors": {s.name: s.label for s in wanted.values()},
        "families": owner,
    }


def _said(cell: dict[str, Any], classifier: str) -> str:
    found = ", ".join(f"{name} {100 * s['accuracy'][classifier][0]:.1f} %" for name, s in cell["settings"].items())
    nc1 = cell["predictors"].get("nc1")
    return found + ("" if nc1 is None else f"; NC1 {nc1:.3g}")


def _by_setting(
    cells: dict[str, Any], families: dict[str, str], names: Sequence[str], classifier: str, protocol: Protocol
) -> dict[str, dict[str, Any]]:
    """{predictor: {setting: Spearman's correlation with the classifier's accuracy there, mean over targets}}."""
    out: dict[str, dict[str, Any]] = {}
    for name in names:
        for setting in protocol.settings():
            pairs = [
                (
                    np.array([np.nan if (v := c["predictors"][name]) is None else v for c in many.values()]),
                    np.array([c["settings"][setting]["accuracy"][classifier][0] for c in many.values()]),
                )
                for many in cells.values()
            ]
            found = predictors.over_networks(pairs, predictors.spearman, families=list(families.values()))
            out.setdefault(name, {})[setting] = found
    return out


def _show(run: Run, cells: dict[str, dict[str, dict[str, Any]]], protocol: Protocol) -> None:
    for setting in protocol.settings():
        run.table(
            f"{setting}: accuracy over {protocol.episodes} episodes, 95 % intervals",
            ["target, network", *protocol.classifiers, "certified"],
            [
                [
                    f"{target}, {backbone}",
                    *(intervals.percent(c["settings"][setting]["accuracy"][name]) for name in protocol.classifiers),
                    _certified(c["settings"][setting]["certificate"]),
                ]
                for target, many in cells.items()
                for backbone, c in many.items()
            ],
        )


def _certified(bound: float | None) -> str:
    return "–" if bound is None else f"{100 * (1 - bound):.1f} %"


def claims(runs: Sequence[Finished]) -> list[Evidence]:
    """What finished runs say of the paper's claims: of C11 by NC1, of C12 by the other measures."""
    out = []
    for run in runs:
        for claim, word in run.results["verdicts"].items():
            name = CLAIMS[claim][1]
            found = correlation(run.results["correlations"][name]["spearman"]["mean"], "").text
            count = len(run.config["targets"])
            setting = f"few-shot, {len(run.config['backbones'])} networks, {count} target{'s' * (count > 1)}"
            which = "" if name == "nc1" else f", {run.results['predictors'][name]}"
            out.append(Evidence("C11" if name == "nc1" else "C12", setting + which, f"Spearman {found}", word))
    return out


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run of the study."""
    sections = []
    for run in runs:
        r, c, stem, at = run.results, run.config, file_stem("few_shot", run.name), f"{run.name}/results.json: "
        said = [
            [
                text(claim),
                text(r["claims"][claim]),
                correlation(r["correlations"][CLAIMS[claim][1]]["spearman"]["mean"], at + "correlations"),
                text(word),
            ]
            for claim, word in r["verdicts"].items()
        ]
        rule = (
            f"The rule, fixed before the run, on the accuracy of {c['judged_by']}, mean over settings: supported if the "
            "interval of the mean Spearman correlation is below 0, contradicted if it is above 0, not supported if it is "
            f"above {c['weakest']:g}, else undecided. Intervals: 95 %, jackknife over families of networks."
        )
        intro = (
            f"{c['novel_classes']} novel and {c['val_classes']} validation classes of each target by a seeded split; "
            "features "
            f"once a network, {c['episodes']} episodes a setting, the same for all networks; strengths chosen on episodes "
            "of "
            "validation classes. Nearest class means read raw features, the others features about the base classes' mean, "
            "of "
            "unit length. Low NC1 and high few-shot accuracy are partly one thing: read the correlation beside size, width "
            "and source accuracy."
        )
        tables = [
            Table(f"verdicts_{stem}", rule, ["claim", "says", "Spearman [95 %]", "verdict"], said),
            correlations(
                f"spearman_{stem}",
                "Spearman's correlation of each predictor, on novel classes, with few-shot accuracy over networks.",
                r["correlations"],
                "spearman",
                r["predictors"],
                c["targets"],
                at + "correlations.",
            ),
            stands(
                f"stands_{stem}", r["correlations"], r["predictors"], r["by_chance"], short_names(run), at + "correlations."
            ),
            _settings_table(run, stem),
            _accuracies(run, stem),
        ]
        drawn = [
            (
                f"Few-shot accuracy ({c['judged_by']}) over NC1 of the novel classes' images, a panel a target: "
                f"{_marks(run)}.",
                _scatter(run, stem),
            ),
        ]
        verdicts = tuple(f"{a.text}, {b.text}: {d.text} (mean Spearman correlation {x.text})." for a, b, x, d in said)
        title = "Does collapse on novel classes say how few-shot learning goes?"
        sections.append(Section(title + (f" ({run.name})" if len(runs) > 1 else ""), intro, drawn, tables, verdicts))
    return sections


def _settings_table(run: Finished, stem: str) -> Table:
    r, settings = run.results, list(next(iter(run.results["by_setting"].values())))
    rows = [
        [
            text(r["predictors"][name]),
            *(correlation(found[s], f"{run.name}/results.json: by_setting.{name}.{s}") for s in settings),
        ]
        for name, found in r["by_setting"].items()
    ]
    caption = "Spearman's correlation with few-shot accuracy, mean over targets, setting by setting."
    return Table(f"settings_{stem}", caption, ["predictor", *settings], rows)


def _accuracies(run: Finished, stem: str) -> Table:
    r, names, rows = run.results, short_names(run), []
    classifiers, settings = run.config["classifiers"], []
    for target, many in r["cells"].items():
        for backbone, cell in many.items():
            at, settings = f"{run.name}/results.json: cells.{target}.{backbone}.", list(cell["settings"])
            row = [text(f"{target}, {names[backbone]}"), *(trusted(cell["novel"], m, f"{at}novel.{m}") for m in MEASURES)]
            for s in settings:
                found = cell["settings"][s]
                row += [spread(found["accuracy"][k], f"{at}settings.{s}.accuracy.{k}") for k in classifiers]
                row.append(number(None if found["certificate"] is None else 100 * (1 - found["certificate"]), at))
            rows.append(row)
    columns = ["target, network", "NC1", "CDNV", "directional CDNV"]
    columns += [f"{s}, {k.replace('_', ' ')} %" for s in settings for k in (*classifiers, "certified")]
    caption = (
        "Accuracy in %, with 95 % intervals over episodes; collapse of all novel images. Certified: what collapse "
        "guarantees the nearest class means, were examples drawn with replacement; 0 where it guarantees nothing."
    )
    return Table(f"accuracies_{stem}", caption, columns, rows)


MARKS = {"circles": "o", "squares": "s", "diamonds": "D", "triangles": "^", "upside down": "v", "crosses": "P"}
MEASURES = ("nc1", "cdnv", "directional_cdnv")


def _marks(run: Finished) -> str:
    settings = next(iter(run.results["by_setting"].values()))
    return ", ".join(f"{name} {s}" for name, s in zip(MARKS, settings, strict=False))


def _scatter(run: Finished, stem: str) -> figures.Drawn:
    """Few-shot accuracy over NC1: a panel a target, a colour a family, a mark a setting."""
    r, names, by = run.results, short_names(run), run.config["judged_by"]
    with figures.panels(len(r["cells"]), 3, 3.0) as (figure, axes):
        for axis, (target, many) in zip(axes, r["cells"].items(), strict=True):
            for i, (backbone, cell) in enumerate(many.items()):
                if cell["novel"]["nc1"] is None:
                    continue
                colour = figures.COLOURS[i % len(figures.COLOURS)]
                for mark, found in zip(MARKS.values(), cell["settings"].values(), strict=False):
                    mean, low, high = (100 * x for x in found["accuracy"][by])
                    axis.errorbar(
                        [cell["novel"]["nc1"]],
                        [mean],
                        [[mean - low], [high - mean]],
                        fmt=mark,
                        ms=4,
                        lw=0.8,
                        color=colour,
                        fillstyle=("full", "none")[i // len(figures.COLOURS) % 2],
                        label=names[backbone] if mark == "o" else None,
                    )
            figures.log_axis(axis, "x")
            axis.set(title=target, xlabel="NC1, novel classes")
        axes[0].set_ylabel(f"{by} accuracy, %")
        figures.legend_below(figure, axes[0])
        return figures.Drawn(f"scatter-{stem}", figure)
