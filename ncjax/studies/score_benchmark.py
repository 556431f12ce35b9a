"""Which score, computed before any tuning, says which network to take? And does it beat size, or a neighbours' vote?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from ncjax.core.errors import UserError, nearest
from ncjax.core.roles import METHOD, SCORE
from ncjax.core.values import NATURAL, SHARE, Items
from ncjax.data.readers import read
from ncjax.evidence import intervals, predictors
from ncjax.evidence.predictors import ELSEWHERE, Pool
from ncjax.evidence.regret import least_regret, mean_regrets
from ncjax.networks.load import Init, backbone_digest, load
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.predictors import by_chance, correlations, random_parts, stands
from ncjax.report.sections import Section, file_stem, short_names
from ncjax.report.tables import Cell, Table, number, percent, text, with_spread
from ncjax.runs.run import Run
from ncjax.scores.score import Score, all_named, complete_cells, installed
from ncjax.transfer import scored
from ncjax.transfer.few_shot import Bench, FewLabels
from ncjax.transfer.grid_search import Search
from ncjax.transfer.program import Budget
from ncjax.transfer.scored import Sizes

# Scores of a block's own leaves are none of a network, and what a probe reaches in training is a control elsewhere.
OF_BLOCKS = ("condition_number", "relative_gradient_norm")
SCORES = [s for s in installed() if s.rpartition(".")[2] not in (*OF_BLOCKS, "train_accuracy")]
CONTROLS = ["knn", "parameters", "source_accuracy"]
PROBE = "probe"


def run(
    *,
    run: Run,
    backbones: Annotated[list[str], Items(least=2, distinct=True)],
    targets: Annotated[list[str], Items(least=1, distinct=True)],
    source_accuracy: Annotated[list[float], SHARE] = [],
    families: list[str] = [],
    sizes: Sizes = Sizes(),
    scores: Annotated[list[str], SCORE, Items(least=1, distinct=True)] = SCORES,
    controls: list[str] = CONTROLS,
    methods: Annotated[list[str], METHOD, Items(distinct=True)] = [],
    shots: Annotated[int, NATURAL] = 20,
    search: Search = Search(),
    budget: Budget = Budget(),
) -> dict[str, Any]:
    """Scores every network for every target, finds out how accurate it becomes there, and judges the scores.

    Args:
      run: where it happens; a stopped run goes on with the pair under way.
      backbones: networks as for `networks.load.Init.init`.
      targets: data sets as for `data.Data.data`.
      source_accuracy: of each network on its own task, 0 where unknown; a control. Empty for none.
      families: of each network, any names: intervals are over families. Empty for one each.
      sizes: how much of each target scores and probe see.
      scores: what is judged, see `ncjax.scores.score`.
      controls: names of scores that every other one is compared with, network by network.
      methods: functions of `ncjax.tuning` whose test accuracy is the truth, beside a linear probe's.
      shots: training images per class for those; 0 for all.
      search, budget: of those, as in `studies.compare`.

    Raises:
      UserError: a control that is no score of the run; numbers of accuracies or families that differ.
    """
    scored.one_each(backbones, source_accuracy=source_accuracy, families=families)
    wanted = all_named(scores)
    for name in controls:
        if name not in wanted:
            raise UserError(f"controls: {name!r} is no score of this run; {nearest(name, wanted)}")
    for init in backbones:  # all of them, before an hour is spent on the first
        network = load(Init(init))
        run.say(f"backbone {init}: {network.card.model}, images of {network.card.image_shape[0]}")
    counts = {target: len(read(target).class_names) for target in targets}
    cells: dict[str, dict[str, dict[str, Any]]] = {target: {} for target in targets}
    for init, known in zip(backbones, source_accuracy or [0.0] * len(backbones), strict=True):
        for target in targets:
            cells[target][init] = _cell(run, init, target, counts[target], known, wanted, sizes) | {
                "tuned": _tuned(run, init, target, methods, shots, search, budget)
            }
            done = sum(map(len, cells.values()))
            run.say(f"{done:>3}/{len(backbones) * len(targets)}  {_said(cells[target][init], init, target)}")
    complete_cells(wanted, cells)
    owner = dict(zip(backbones, families or backbones, strict=True))
    truths = {truth: _judged(cells, truth, wanted, owner, controls) for truth in (PROBE, *methods)}
    labels = {s.name: s.label for s in wanted.values()}
    if len(targets) > 1:
        labels[ELSEWHERE] = "mean rank on the other targets"
    _show(run, truths, labels)
    return {
        "cells": cells,
        "truths": truths,
        "rule": _rule(truths, list(wanted), labels),
        "labels": labels,
        "families": owner,
        "controls": controls,
        "seconds": _seconds(cells),
    }


def _cell(
    run: Run, init: str, target: str, count: int, known: float, wanted: dict[str, Score], sizes: Sizes
) -> dict[str, Any]:
    network = load(Init(init))
    dataset = scored.data_of(network.card, target, count, sizes)
    key = {"backbone": init, "target": target, "base": backbone_digest(network), "images": dataset.identity()}
    return run.once(
        {**key, "scores": ",".join(wanted), "source": known},
        lambda: scored.pair(run, network, dataset, wanted, batch_size=64, source_accuracy=known),
    )


def _tuned(
    run: Run, init: str, target: str, methods: Sequence[str], shots: int, search: Search, budget: Budget
) -> dict[str, dict[str, Any]]:
    """{method: its test accuracies by seed, and what was chosen}."""
    if not methods:
        return {}
    bench = Bench(run, Init(init), FewLabels(target, max_test=1000), search, budget)
    found = {method: bench.search(method, layer=None, shots=shots) for method in methods}
    return {m: {"test": [c["test"] for c in x.cells], "hyper": x.hyper, "diverged": x.diverged} for m, x in found.items()}


def accuracy_of(cell: dict[str, Any], truth: str) -> float:
    """What a network comes to: the probe's test accuracy, or a method's mean over seeds."""
    return cell["probe"]["test"] if truth == PROBE else float(np.mean(cell["tuned"][truth]["test"]))


def _said(cell: dict[str, Any], init: str, target: str) -> str:
    found = ", ".join(f"{figures.plain(m)} {100 * accuracy_of(cell, m):.1f} %" for m in (PROBE, *cell["tuned"]))
    without = len(cell["reasons"])
    return f"{init} on {target}: {found}" + (f"; {without} scores do not apply" if without else "")


def _judged(
    cells: dict[str, Any], truth: str, wanted: dict[str, Score], owner: dict[str, str], controls: Sequence[str]
) -> dict[str, Any]:
    """Every score against one truth."""
    scores: Pool = predictors.pool(
        {t: {b: c["predictors"] for b, c in many.items()} for t, many in cells.items()},
        {t: {b: accuracy_of(c, truth) for b, c in many.items()} for t, many in cells.items()},
        owner,
        {s.name: s.sign for s in wanted.values()},
    )
    pool = predictors.with_rank_elsewhere(scores)  # which is made of accuracies: no part of what chance is asked of
    return {
        "summary": predictors.summary(pool),
        "by_chance": predictors.best_by_chance(scores),
        "against": {name: {c: predictors.against(pool, name, c) for c in controls if c != name} for name in pool.values},
        "signs": pool.signs,
    }


def _rule(truths: dict[str, dict[str, Any]], names: Sequence[str], labels: dict[str, str]) -> dict[str, Any]:
    """The score of smallest regret, mean over truths and targets, of those that every network has; and how sure that is."""
    lost = {
        name: mean_regrets([truth["summary"][name]["regret"] for truth in truths.values()])
        for name in names
        if all((x := truth["summary"][name]["regret"]) and not x["missing"] for truth in truths.values())
    }
    if not lost:
        return {"rule": None}
    rule = least_regret(lost)
    return {
        "rule": rule.name,
        "label": labels[rule.name],
        "regret": list(rule.regret),
        "nested": list(rule.nested),
        "level": rule.level,
        "over": len(lost[rule.name]),
        "scores": len(lost),
    }


def _nested(rule: dict[str, Any]) -> list[float] | None:
    """What the choice loses on targets that it was not made on; None for one target, and in records of before."""
    found = rule.get("nested")
    return None if found is None or found[0] is None else found


def _seconds(cells: dict[str, Any]) -> dict[str, float]:
    """Mean seconds a pair of each score."""
    found: dict[str, list[float]] = {}
    for many in cells.values():
        for cell in many.values():
            for name, value in cell["seconds"].items():
                found.setdefault(name, []).append(value)
    return {name: float(np.mean(x)) for name, x in found.items()}


def _show(run: Run, truths: dict[str, dict[str, Any]], labels: dict[str, str]) -> None:
    for truth, found in truths.items():
        rows = []
        for name, x in found["summary"].items():
            tau, lost = x["weighted_kendall"]["mean"], x["regret"]
            rows.append(
                [
                    labels[name],
                    "-" if tau is None else f"{found['signs'][name] * tau.value:+.2f}",
                    "-" if lost is None else intervals.percent(lost["mean"]),
                ]
            )
        title = (
            f"{figures.plain(truth)}: weighted Kendall correlation in the promised direction; what the first choice loses"
        )
        run.table(title, ["score", "weighted Kendall", "regret"], rows)
        if said := by_chance(found["by_chance"], labels):
            run.say(said)


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run of the study."""
    sections = []
    for run in runs:
        r, stem = run.results, file_stem("scores", run.name)
        tables = []
        for truth, found in r["truths"].items():
            at, name = f"{run.name}/results.json: truths.{truth}.summary.", f"{figures.plain(truth)}_{stem}"
            stood = stands(f"stands_{name}", found["summary"], r["labels"], found["by_chance"], short_names(run), at)
            tables += [
                stood._replace(caption=f"Truth: test accuracy of {figures.plain(truth)}. {stood.caption}"),
                _against(run, truth, f"against_{name}"),
                correlations(
                    f"kendall_{name}",
                    f"Weighted Kendall correlation with test accuracy of {figures.plain(truth)}, target by target.",
                    found["summary"],
                    "weighted_kendall",
                    r["labels"],
                    run.config["targets"],
                    at,
                ),
            ]
        tables += [_costs(run, stem), _pairs(run, stem)]
        rule, verdicts = r["rule"], []
        if rule["rule"] is not None:
            beaten = rule["scores"] - 1 - len(rule["level"])
            verdicts.append(
                f"Over {len(r['families'])} networks, {len(run.config['targets'])} targets and {len(r['truths'])} truths, "
                f"{rule['label']} loses least by its first choice, {intervals.points(rule['regret'])} points; "
                f"{beaten} of {rule['scores'] - 1} other scores lose more beyond the interval of the paired difference."
                + (
                    f" Chosen on the other targets, the rule loses {intervals.points(x)} on one."
                    if (x := _nested(rule))
                    else ""
                )
            )
        intro = (
            f"{len(r['families'])} networks of {len(set(r['families'].values()))} families. A score is a number computed "
            "before any tuning; the truth is what the network then comes to. Correlations keep the score's own sign; a "
            "score "
            "that promises well by being small should have a negative one. Controls: a neighbours' vote, and numbers that "
            "have not seen the target."
        )
        title = "Which score says which network to take?" + (f" ({run.name})" if len(runs) > 1 else "")
        drawn = [
            (
                "Weighted Kendall correlation in the direction that each score promises, mean over targets, with 95 % "
                "jackknife intervals over families of networks.",
                _bars(run, stem),
            )
        ]
        sections.append(Section(title, intro, drawn, tables, tuple(verdicts)))
    return sections


def _against(run: Finished, truth: str, name: str) -> Table:
    """By how much each score exceeds the controls."""
    r = run.results

    def cell(found: Sequence[float] | None, of: str, other: str) -> Cell:
        if found is None:
            return text("–")
        value, low, high, families = found
        source = f"{run.name}/results.json: truths.{truth}.against.{of}.{other} ({families} families)"
        return Cell(value, intervals.signed((value, low, high)), source)

    rows = [
        [text(r["labels"][of]), *(cell(found.get(c), of, c) if c != of else text("–") for c in r["controls"])]
        for of, found in r["truths"][truth]["against"].items()
    ]
    caption = (
        f"Truth: {figures.plain(truth)}. Weighted Kendall correlation in the promised direction, less a control's over the "
        "networks that both have a value of; 95 % jackknife intervals over families."
    )
    return Table(name, caption, ["score", *(f"less {r['labels'][c]}" for c in r["controls"])], rows)


def _costs(run: Finished, stem: str) -> Table:
    r = run.results
    rows = [
        [text(r["labels"].get(name, name)), number(value, f"{run.name}/results.json: seconds.{name}")]
        for name, value in sorted(r["seconds"].items(), key=lambda item: item[1])
    ]
    caption = (
        "Seconds, mean over networks and targets. Extraction and class moments are shared by all scores; what several need "
        "of the moments counts for the first of them."
    )
    return Table(f"seconds_{stem}", caption, ["score", "seconds"], rows)


def _pairs(run: Finished, stem: str) -> Table:
    r, names = run.results, short_names(run)
    rows, wanted = [], [n for n in r["labels"] if n != ELSEWHERE]
    for target, many in r["cells"].items():
        for backbone, cell in many.items():
            at = f"{run.name}/results.json: cells.{target}.{backbone}."
            rows.append(
                [
                    text(f"{target}, {names[backbone]}"),
                    *(percent(accuracy_of(cell, truth), at) for truth in r["truths"]),
                    *(_predictor(cell, n, at) for n in wanted),
                ]
            )
    columns = ["target, network", *(f"{figures.plain(t)} test %" for t in r["truths"]), *(r["labels"][n] for n in wanted)]
    cells = [cell for many in r["cells"].values() for cell in many.values()]
    caption = "Every network on every target." + random_parts(cells, r["labels"])
    return Table(f"pairs_{stem}", caption, columns, rows)


def _predictor(cell: dict[str, Any], name: str, at: str) -> Cell:
    shown = number(cell["predictors"].get(name), f"{at}predictors.{name}")
    return with_spread(shown, cell.get("spreads", {}).get(name))  # records of before hold none


def _bars(run: Finished, stem: str) -> figures.Drawn:
    """A row a score, a colour a truth."""
    r = run.results
    names = [n for n in r["labels"] if any(t["summary"][n]["weighted_kendall"]["mean"] for t in r["truths"].values())]
    with figures.panel(6.0, 0.24 * len(names) + 1.2) as (figure, axis):
        for i, (truth, found) in enumerate(r["truths"].items()):
            for k, name in enumerate(names):
                c = found["summary"][name]["weighted_kendall"]["mean"]
                if c is None:
                    continue
                sign = found["signs"][name]
                low, high = sorted((sign * c[1], sign * c[2]))
                axis.errorbar(
                    [sign * c[0]],
                    [k + 0.2 * (i - (len(r["truths"]) - 1) / 2)],
                    xerr=[[sign * c[0] - low], [high - sign * c[0]]],
                    fmt="o",
                    ms=3,
                    lw=0.8,
                    color=figures.COLOURS[i],
                    label=figures.plain(truth) if name == names[0] else None,
                )
        axis.axvline(0, color="#888888", lw=0.8)
        axis.set_yticks(range(len(names)), [r["labels"][n] for n in names], fontsize=7)
        axis.set(xlabel="weighted Kendall correlation", xlim=(-1.02, 1.02))
        axis.invert_yaxis()
        figures.legend_below(figure, axis)
        return figures.Drawn(f"kendall-{stem}", figure)
