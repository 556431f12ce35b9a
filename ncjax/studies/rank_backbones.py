"""Of these networks, which should be tuned for my images? Ranks them before any tuning, and says what tuning each costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import jax

from ncjax.core.errors import UserError
from ncjax.core.mesh import make
from ncjax.core.roles import METHOD, SCORE
from ncjax.core.types import Network
from ncjax.core.values import COUNT, Items
from ncjax.data.readers import read
from ncjax.evidence import intervals
from ncjax.networks import weights
from ncjax.networks.load import Init, backbone_digest, load
from ncjax.networks.weights import hub
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.predictors import random_parts
from ncjax.report.sections import Section, file_stem
from ncjax.report.tables import Row, number, of_rows, percent, text, wilson, with_spread
from ncjax.runs.run import Run
from ncjax.scores.score import Score, all_named, complete
from ncjax.transfer import scored
from ncjax.transfer.program import Budget, Program
from ncjax.transfer.scored import Sizes
from ncjax.tuning.plans import Target, plan_of

RECORD = "score_rule.json"
FOLDER = "weights"  # where networks are looked for, beside the caches of downloaded ones
BESIDE = ["scores.knn", "scores.nc1", "scores.logme"]


def evidence() -> dict[str, Any]:
    """What the record that ships with ncjax says of the default rule; `bench/score_rule.py` makes it."""
    return json.loads(resources.files("ncjax.studies").joinpath(RECORD).read_text(encoding="utf-8"))


def held(folder: Path = Path(FOLDER)) -> list[str]:
    """Networks on this machine: weights in a folder, and downloaded ones in the caches of torchvision and Hugging Face."""
    files = sorted(p for p in folder.glob("*") if p.suffix in weights.SUFFIXES) if folder.is_dir() else []
    return [str(p) for p in files] + hub.held()


def run(
    *,
    run: Run,
    data: str,
    backbones: Annotated[list[str], Items(distinct=True)] = [],
    rule: Annotated[str | None, SCORE] = None,
    scores: Annotated[list[str], SCORE, Items(distinct=True)] = BESIDE,
    method: Annotated[str, METHOD] = "tuning.scl_ft",
    sizes: Sizes = Sizes(),
    batch_size: Annotated[int, COUNT] = 64,
) -> dict[str, Any]:
    """Extracts features once a network, and ranks.

    Args:
      run: where it happens; a stopped run goes on with the network under way.
      data: the images, as for `data.Data.data`.
      backbones: networks as for `networks.load.Init.init`; empty for the files in `weights/` and what the caches of
        torchvision and Hugging Face hold. Of those, what ncjax cannot read is named and left out.
      rule: the score that ranks; None for the one that lost least in ncjax's own benchmark.
      scores: shown beside it.
      method: of tuning, whose costs are told.
      sizes: how much of the data.
      batch_size: images a step.

    Raises:
      UserError: fewer than two networks, or the rule gives none of them a value.
    """
    known = evidence()
    by = rule or f"scores.{known['rule']}"
    wanted = all_named(list(dict.fromkeys([by, *scores])))
    first = next(s for s in wanted.values() if s.name == all_named([by]).popitem()[0])
    networks = _networks(run, backbones)
    count = len(read(data).class_names)
    cells: dict[str, dict[str, Any]] = {}
    for init in networks:
        network = load(Init(init))
        dataset = scored.data_of(network.card, data, count, sizes)
        if "val" not in dataset.splits:
            raise UserError(f"{data}: nothing is left to validate on; give more images of each class")
        key = {"backbone": init, "base": backbone_digest(network), "images": dataset.identity(), "method": method}
        cells[init] = run.once(
            {**key, "scores": ",".join(wanted)},
            lambda held=(network, dataset): {
                **scored.pair(run, *held, wanted, batch_size=batch_size, source_accuracy=0.0),
                "cost": _cost(*held, method, count, batch_size),
            },
        )
        run.say(f"{len(cells):>3}/{len(networks)}  {init}: {_said(cells[init], first)}")
    values = complete(wanted, {b: c["predictors"] for b, c in cells.items()})
    if all(found.get(first.name) is None for found in values.values()):
        reason = next(iter(cells.values()))["reasons"].get(first.name, "not defined")
        raise UserError(f"rule={by}: it gives no network a value ({reason}); choose another, such as scores.logme")
    order = sorted(values, key=lambda b: first.better(values[b].get(first.name)), reverse=True)
    _show(run, order, values, cells, wanted, first)
    run.say(_words(known, first, rule is None))
    run.say(f"to tune the first\n  ncjax finetune:init={order[0]},data={data},method={method}")
    return {
        "data": next(iter(cells.values()))["data"],
        "order": order,
        "rule": first.name,
        "values": values,
        "cells": cells,
        "labels": {s.name: s.label for s in wanted.values()},
        "evidence": _words(known, first, rule is None),
    }


def _networks(run: Run, named: Sequence[str]) -> list[str]:
    """Those named, all of which must load; or those held that do."""
    if named:
        for init in named:
            load(Init(init))
        found = list(named)
    else:
        found = []
        for init in held():
            try:
                load(Init(init))
            except UserError as e:
                run.say(f"left out: {e}")
            else:
                found.append(init)
    if len(found) < 2:
        where = f"found in {FOLDER}/ and in the caches" if not named else "named"
        raise UserError(
            f"{len(found)} network{'s' * (len(found) != 1)} {where}: there is nothing to rank; name two or more with "
            "backbones=[torchvision:resnet18,torchvision:mobilenet_v2], say"
        )
    return found


def _cost(network: Network, dataset: Any, method: str, count: int, batch_size: int) -> dict[str, float | None]:
    """Share of the parameters that the method tunes, their number, and FLOPs of a training step an image."""
    plan = plan_of(method, network, Target(count, jax.random.key(0), None))
    tuned, total = plan.share()
    program = Program(
        plan, Budget(steps=1, rounds=1, warmup_rounds=0.0, batch_size=batch_size), make(), dataset.image_shape
    )
    flops = program.expected_flops(dataset.image_shape)
    return {"tuned": tuned, "share": tuned / total, "flops": flops and flops / batch_size}


def _said(cell: dict[str, Any], first: Score) -> str:
    value = cell["predictors"].get(first.name)
    probe = f"probe {100 * cell['probe']['val']:.1f} % on validation"
    return probe + ("" if value is None else f", {first.label} {value:.4g}")


def _show(
    run: Run,
    order: Sequence[str],
    values: dict[str, dict[str, float | None]],
    cells: dict[str, dict[str, Any]],
    wanted: dict[str, Score],
    first: Score,
) -> None:
    shown = [first, *(s for s in wanted.values() if s.name != first.name)]
    rows = []
    for place, init in enumerate(order, 1):
        cost, found = cells[init]["cost"], [values[init].get(s.name) for s in shown]
        rows.append(
            [
                f"{place}  {init}",
                *("-" if v is None else f"{v:.4g}" for v in found),
                f"{cost['tuned'] / 1e6:.2f} M ({100 * cost['share']:.1f} %)",
                "-" if cost["flops"] is None else f"{cost['flops'] / 1e9:.2f} G",
            ]
        )
    run.table(f"ranked by {first.label}", ["network", *(s.label for s in shown), "tuned", "FLOPs an image"], rows)


def _words(known: dict[str, Any], first: Score, is_default: bool) -> str:
    """How far the rule is to be trusted."""
    if first.name != known["rule"]:
        return f"{first.label} ranks, as asked for; ncjax's own benchmark would rank by {known['label']}."
    said = (
        f"{first.label} lost least by its first choice in ncjax's own benchmark: {intervals.points(known['regret'])} "
        "points of "
        f"test accuracy, over {known['networks']} networks and {known['over']} targets; chosen on the others, it loses "
        f"{intervals.points(known['nested'])} on a target. "
    )
    level = known["level"]
    said += f"Not told apart from it: {len(level)} of {known['scores'] - 1} other scores" + (
        f", {', '.join(level[:6])}{' ...' if len(level) > 6 else ''} among them." if level else "."
    )
    return said if is_default else said + " It was asked for."


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every ranking."""
    sections = []
    for run in runs:
        r, stem = run.results, file_stem("ranking", run.name)
        caption = (
            f"Networks for {run.config['data']}, best first by {r['labels'][r['rule']]}. Costs: of "
            f"{figures.plain(run.config['method'])}, a training step an image above the kept prefix."
        )
        caption += random_parts(r["cells"].values(), r["labels"])
        verdict = f"{run.config['data']}: take {r['order'][0]}. {r['evidence']}"
        bars = "A linear probe's accuracy on validation, with 95 % Wilson intervals, in the order of the ranking."
        drawn = [(bars, _bars(run, stem))]
        title = f"Which network to tune for {run.config['data']}?"
        table = of_rows(stem, caption, [[("network", text(init)), *_row(run, init)] for init in r["order"]])
        sections.append(Section(title, r["evidence"], drawn, [table], (verdict,)))
    return sections


def _row(run: Finished, init: str) -> Row:
    r, cell, at = run.results, run.results["cells"][init], f"{run.name}/results.json: "
    values, spreads, cost = r["values"][init], cell.get("spreads", {}), cell["cost"]  # records of before hold no spreads
    return [
        *(
            (r["labels"][s], with_spread(number(values.get(s), f"{at}values.{init}.{s}"), spreads.get(s)))
            for s in _names(r)
        ),
        ("probe val % [95 %]", percent(cell["probe"]["val"], f"{at}cells.{init}.probe.val", cell["data"]["val"]["size"])),
        ("tuned %", percent(cost["share"], f"{at}cells.{init}.cost.share")),
        ("tuned", number(cost["tuned"], f"{at}cells.{init}.cost.tuned")),
        ("FLOPs an image", number(cost["flops"], f"{at}cells.{init}.cost.flops")),
        ("seconds to extract", number(cell["seconds"]["extraction"], f"{at}cells.{init}.seconds.extraction")),
    ]


def _names(r: dict[str, Any]) -> list[str]:
    return [r["rule"], *(s for s in r["labels"] if s != r["rule"])]


def _bars(run: Finished, stem: str) -> figures.Drawn:
    r = run.results
    with figures.panel(6.0, 0.3 * len(r["order"]) + 0.9) as (figure, axis):
        for i, init in enumerate(r["order"]):
            cell = r["cells"][init]
            value = cell["probe"]["val"]
            low, high = wilson(value, cell["data"]["val"]["size"])
            error = [[100 * (value - low)], [100 * (high - value)]]
            axis.errorbar([100 * value], [i], xerr=error, fmt="o", color=figures.COLOURS[0])
        axis.set_yticks(range(len(r["order"])), [Path(b).name for b in r["order"]], fontsize=7)
        axis.set(xlabel="probe, validation accuracy, %")
        axis.invert_yaxis()
        return figures.Drawn(stem, figure)
