"""Which block to tune? Ranks them before any fine-tuning; on request tunes some, or all, and says what rules lose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from ncjax.core.errors import UserError, nearest
from ncjax.core.roles import METHOD, SCORE
from ncjax.core.values import COUNT, NATURAL, SHARE, Items, OneOf
from ncjax.evidence import intervals
from ncjax.evidence.correlation import spearman
from ncjax.evidence.paper import Evidence
from ncjax.evidence.regret import blocks_differ, over_studies, regrets
from ncjax.networks.load import Init
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section, file_stem, named
from ncjax.report.tables import CHANCE, Cell, Row, Table, in_percent, number, of_rows, percent, spread, text
from ncjax.runs.run import Run
from ncjax.scores.score import Score, all_named
from ncjax.transfer import ranking
from ncjax.transfer.blocks import beside_probe, block_costs, block_scores, takes_a_block, tune_each
from ncjax.transfer.few_shot import Bench, FewLabels
from ncjax.transfer.grid_search import Search
from ncjax.transfer.program import Budget


def run(
    *,
    run: Run,
    init: Init,
    target: FewLabels = FewLabels(),
    rule: str = "logme",
    scores: Annotated[list[str], SCORE, Items(least=1, distinct=True)] = ranking.BLOCK_SCORES,
    method: Annotated[str, METHOD] = "tuning.scl_ft",
    blocks: str | None = None,
    tune: Annotated[str, OneOf("none", "top", "all")] = "none",
    top: Annotated[int, COUNT] = 3,
    shots: Annotated[int, NATURAL] = 20,
    margin: Annotated[float, SHARE] = 0.01,
    search: Search = Search(),
    budget: Budget = Budget(),
) -> dict[str, Any]:
    """Ranks the blocks of a network for a target, and on request checks the ranking by tuning.

    Args:
      run: where it happens; a stopped run goes on.
      init: the network.
      target: the data set.
      rule: what ranks: the name of a score, or a place: "tunnel_start", "first", "middle", "key_layer", "last".
        docs/results/choose_layer has what they lost on the data sets at hand.
      scores: what is said of every block, see `ncjax.scores.score`.
      method: how a block is tuned, a function of `ncjax.tuning` that tunes one.
      blocks: candidates, a pattern; None for all residual or encoder blocks.
      tune: "none", "top" (the rule's first `top` on seed 0) or "all".
      shots: training images per class; 0 for all.
      margin: difference in test accuracy that does not matter, as in `compare`, for rules over several studies.
      search, budget: as in `compare`, for every block alike.
    """
    wanted = _checked(rule, scores, tune, search.seeds)
    bench = Bench(run, init, target, search, budget)
    model, dataset = bench.network.model, bench.subsets.get(shots, 0)
    takes_a_block(bench, method, ranking.candidates(model, blocks), shots)
    run.announce(dataset, bench.describe())
    names = ranking.candidates(model, blocks)
    seen = [block_scores(bench, names, wanted, shots, seed) for seed in range(search.seeds if tune != "none" else 1)]
    found, reasons = [x["values"] for x in seen], {k: v for x in seen for k, v in x["reasons"].items()}
    for name, reason in reasons.items():
        run.say(f"  no {wanted[name].label}: {reason}")
    cannot = ranking.without_value(found, wanted)
    if rule in cannot:
        raise UserError(f"rule={rule}: no block has that score ({reasons[rule]})")
    ranked = ranking.ordered(rule, found[0], model, wanted)
    meanings = {name: meaning for name, (_, meaning) in ranking.rules(wanted).items() if name not in cannot}
    picks = {name: [ranking.choose(name, f, model, wanted) for f in found] for name in meanings}
    costs = run.once(
        {"costs": method, "shots": shots, **bench.identity(shots, 0)}, lambda: block_costs(bench, method, names, shots)
    )
    _show_scores(run, target.data, found[0], costs, wanted)
    for name, chosen in picks.items():
        run.say(f"  {name:<22} {chosen[0]:<10} {meanings[name]}")
    _advise(run, init, target.data, method, shots, ranked, f"rule {rule} ({meanings[rule]})")
    out = {
        "data": dataset.describe(),
        "network": bench.describe(),
        "blocks": list(names),
        "rule": rule,
        "choice": ranked[0],
        "ranked": ranked,
        "scores": found,
        "reasons": reasons,
        "picks": picks,
        "costs": costs,
        "labels": {s.name: s.label for s in wanted.values()},
        "meaning": meanings | {"random": "any block, on average"},
    }
    if tune == "none":
        return out
    out |= tune_each(bench, method, names if tune == "all" else ranked[:top], shots)
    out |= beside_probe(bench, out["tuned"][ranked[0]], shots, margin)
    run.say(_advice(ranked[0], costs[ranked[0]]["share"], out))
    if tune == "all":
        out |= regrets(out["tuned"], picks)
        order = sorted(out["regret"], key=lambda r: out["regret"][r][0])
        run.table(
            f"best in hindsight: {out['best']}; what each rule loses in test accuracy, {search.seeds} seeds",
            ["rule", "chooses", "regret, 95 % t interval"],
            [[r, ", ".join(dict.fromkeys(picks.get(r, ["any"]))), intervals.percent(out["regret"][r])] for r in order],
        )
    return out


def _checked(rule: str, scores: Sequence[str], tune: str, seeds: int) -> dict[str, Score]:
    """The scores, once everything that was asked for is known to be possible."""
    if tune != "none" and seeds < 2:
        raise UserError(f"seeds={seeds}: an interval over seeds needs two")
    wanted = all_named(scores)
    if rule not in ranking.rules(wanted):
        raise UserError(f"rule={rule!r}: {nearest(rule, ranking.rules(wanted))}")
    return wanted


def _advise(run: Run, init: Init, data: str, method: str, shots: int, ranked: Sequence[str], rule: str) -> None:
    """Says which blocks to tune, and by which command."""
    known = {"init": init.init, "data": data, "method": method, "layer": ranked[0], "n_per_class": shots or None}
    known |= {k: v for k, v in init._asdict().items() if v not in (None, "last", [])}
    settings = ",".join(f"{k}={v}" for k, v in known.items() if v is not None)
    run.say(f"{rule}: {ranked[0]} first, then {', '.join(ranked[1:3])}; to tune it\n  ncjax finetune:{settings}")


def _advice(block: str, share: float, found: dict[str, Any]) -> str:
    """What to do: tune the block, or stay with the probe."""
    gain, probe = found["gain"], intervals.percent(found["probe"]["test"])
    points = intervals.points(gain["difference"], sign=True)
    said = f"{points} points over the probe ({probe}) for {in_percent(share)} of the parameters"
    if gain["word"] == "ahead":
        return f"tune {block}: {said}"
    seeds = len(found["probe"]["seeds"])
    told = gain["word"] + (f" by {seeds} seeds" if gain["word"] == "not told apart" else "")
    return f"stay with the probe: tuning {block} gives {said}, {told}"


def _show_scores(
    run: Run, data: str, found: ranking.Values, costs: dict[str, dict[str, float]], wanted: dict[str, Score]
) -> None:
    run.table(
        f"blocks on {data}, seed 0",
        ["block", "tuned", "FLOPs", *(s.label for s in wanted.values())],
        [
            [
                b,
                f"{100 * costs[b]['share']:.2f} %",
                "-" if costs[b]["flops"] is None else f"{100 * costs[b]['flops']:.1f} %",
                *("-" if found[b][name] is None else f"{found[b][name]:.4g}" for name in wanted),
            ]
            for b in found
        ],
    )
    run.say("tuned: share of parameters; FLOPs: a training step above the kept prefix, as a share of full fine-tuning's")


def claims(runs: Sequence[Finished]) -> list[Evidence]:
    """What finished runs in which every block was tuned say of C15.

    "half supported" where it matters which layer: blocks differ, p < 0.05 by permuting them within seeds;
    "supported" where the block of smallest NC1 loses less than a random one, too, seed by seed, beyond the interval;
    "contradicted" where it loses more; else "undecided".
    """
    out = []
    for run in runs:
        lost = run.results.get("by_seed")
        if lost is None:
            continue
        p, random = blocks_differ(run.results["tuned"]), run.results["regret"]["random"]
        found, ranks, worse = (
            f"blocks differ, p = {p:.2g}; a random one loses {intervals.points(random)} points",
            False,
            False,
        )
        if "nc1" in lost:
            less = intervals.paired(lost["random"], lost["nc1"])
            ranks, worse = less.low > 0, less.high < 0
            found += f", that of smallest NC1 {intervals.points(less, sign=True)} fewer{_over_blocks(run)}"
        else:
            found += "; NC1 does not compare"
        matters = p < 0.05
        word = (
            "contradicted" if worse else "supported" if matters and ranks else "half supported" if matters else "undecided"
        )
        setting = f"{named(run)}, {run.config['shots']} images per class, {run.config['seeds']} seeds"
        out.append(Evidence("C15", setting, found, word))
    return out


def _over_blocks(run: Finished) -> str:
    """Spearman's correlation over tuned blocks of NC1 on test, after tuning, with test accuracy; means over seeds."""
    pairs = [(x[0], run.results["accuracy"][b][0]) for b, x in run.results.get("nc1_test", {}).items() if x is not None]
    if len(pairs) < 4:
        return ""
    return f"; after tuning, NC1 on test and accuracy over {len(pairs)} blocks: {spearman(*zip(*pairs, strict=True)):+.2f}"


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every network and target whose blocks were ranked, and one over those where all were tuned."""
    sections = []
    for run in runs:
        stem = file_stem("on", run.name)
        drawn = [
            (
                "What the blocks' features say before any tuning (a probe on each, on validation) and, where they were "
                "tuned, how accurate that was on test, beside the plain probe there; bars and band: 95 % over seeds.",
                _by_block(run, stem),
            )
        ]
        tables = [_score_table(run, stem)]
        if "regret" in run.results:
            tables.append(_regret_table(run, stem))
        intro = (
            f"Rule {run.results['rule']} ({run.results['meaning'][run.results['rule']]}) chooses {run.results['choice']}."
        )
        if "probe" in run.results:
            intro += f" The plain probe reaches {intervals.percent(run.results['probe']['test'])} on test."
        sections.append(Section(f"Which block to tune? {named(run)}", intro, drawn, tables, (_verdict(run),)))
    judged = [run for run in runs if "regret" in run.results]
    return sections + ([_pooled(judged)] if len(judged) > 1 else [])


def _verdict(run: Finished) -> str:
    r, block = run.results, run.results["choice"]
    if "tuned" in r and "gain" not in r:  # a record of before the probe stood beside it
        return f"{named(run)}: rule {r['rule']} chooses {block}. The probe was not run beside the tuned blocks."
    if "gain" in r:
        return f"{named(run)}: {_advice(block, r['costs'][block]['share'], r)}."
    return (
        f"{named(run)}: rule {r['rule']} chooses {block}. Nothing was tuned, so whether that beats the probe is not known: "
        "set tune=top."
    )


def _score_table(run: Finished, stem: str) -> Table:
    c = run.config
    caption = (
        f"{named(run)}, {c['shots']} images per class. Scores and choices of seed 0, before any "
        f"tuning; FLOPs: a training step of {figures.plain(c['method'])} above the kept prefix, as a share of full "
        "fine-tuning's. Test accuracy: means over seeds with 95 % t intervals. NC1 after tuning, at "
        "the penultimate layer without the skip and at the readout, what the classifier reads. " + CHANCE
    )
    return of_rows(f"blocks_{stem}", caption, [_row(run, block) for block in run.results["blocks"]])


def _row(run: Finished, block: str) -> Row:
    r, at = run.results, f"{run.name}/results.json: "
    found, costs, accuracy = r["scores"][0][block], r["costs"][block], r.get("accuracy", {}).get(block)

    def after(name: str) -> Cell:
        return number((r.get(name, {}).get(block) or [None])[0], f"{at}{name}.{block}.0")

    return [
        ("block", text(block)),
        ("tuned: test % [95 %]", spread(accuracy, f"{at}accuracy.{block}", r["data"]["test"].get("largest"))),
        ("tuned %", percent(costs["share"], f"{at}costs.{block}.share")),
        ("FLOPs %", percent(costs["flops"], f"{at}costs.{block}.flops")),
        ("probe val %", percent(found.get("probe_accuracy"), f"{at}scores.0.{block}.probe_accuracy")),
        *(
            (label, number(found[name], f"{at}scores.0.{block}.{name}"))
            for name, label in r["labels"].items()
            if name != "probe_accuracy"
        ),
        ("NC1 train", after("nc1_train")),
        ("NC1 test", after("nc1_test")),
        ("NC1 readout, train", after("nc1_readout_train")),
        ("NC1 readout, test", after("nc1_readout_test")),
        ("chosen by", text(", ".join(rule for rule, picks in r["picks"].items() if picks[0] == block) or "–")),
    ]


def _regret_table(run: Finished, stem: str) -> Table:
    r = run.results
    caption = (
        f"Test accuracy that each rule loses against {r['best']}, the best block in "
        "hindsight; means over seeds with 95 % t intervals. The best of several noisy means is too good by some "
        "noise, and so is every regret; differences between rules are not."
    )
    rows = [
        [
            ("rule", text(rule)),
            ("means", text(r["meaning"][rule])),
            ("chooses", text(", ".join(dict.fromkeys(r["picks"].get(rule, ["any"]))))),
            ("regret % [95 %]", spread(r["regret"][rule], f"{run.name}/results.json: regret.{rule}")),
        ]
        for rule in sorted(r["regret"], key=lambda rule: r["regret"][rule][0])
    ]
    return of_rows(f"regret_{stem}", caption, rows)


WORDS = {"ahead": "worse", "behind": "better", "level": "level", "not told apart": "not told apart"}  # of regrets


def _pooled(runs: Sequence[Finished]) -> Section:
    """Every rule's regret over all studies in which every block was tuned; a study counts once."""
    margin = runs[0].config["margin"]
    found = over_studies([run.results["regret"] for run in runs], margin)
    best, rows = next(iter(found)), []
    for rule, x in found.items():
        against = x["against_best"]
        mean = spread(x["regret"])
        rows.append(
            [
                ("rule", text(rule)),
                ("means", text(runs[0].results["meaning"].get(rule, "–"))),
                ("regret % [95 %]", mean._replace(text=mean.text + ("" if x["studies"] == len(runs) else " †"))),
                ("worst %", spread((x["worst"],) * 3)._replace(text=f"{100 * x['worst']:.1f}")),
                (f"more than {best} [95 %]", text("–") if rule == best else spread(against["difference"])),
                ("verdict", text("–" if rule == best else WORDS[against["word"]])),
            ]
        )
    worse = [rule for rule, x in found.items() if x["against_best"]["word"] == "ahead"]
    intro = (
        f"Over {len(runs)} studies, which may share backbones or targets, {best} loses least. Worse beyond the interval: "
        f"{', '.join(worse) or 'no rule'}. Level means within {100 * margin:g} points by two one-sided tests."
    )
    table = of_rows(
        "regret",
        "Regret in test accuracy, % : mean over studies with 95 % t interval, the worst study, and the "
        f"difference from {best}, paired by study. †: not defined in every study.",
        rows,
    )
    return Section("Which rule to trust?", intro, [], [table])


def _by_block(run: Finished, name: str) -> figures.Drawn:
    """NC1 over its floor, probe accuracy on validation, and accuracy after tuning, block by block."""
    found, tuned = run.results["scores"][0], run.results.get("accuracy", {})
    names = run.results["blocks"]
    with figures.panels(2, 2, 3.2, width=3.8) as (figure, axes):
        values = [found[b].get("nc1_over_floor") for b in names]
        axes[0].plot(range(len(names)), [np.nan if v is None else v for v in values], "o-", ms=3, color=figures.COLOURS[0])
        axes[0].set(title="NC1 / floor, train")
        axes[1].plot(
            range(len(names)),
            [100 * (found[b].get("probe_accuracy") or np.nan) for b in names],
            "o--",
            ms=3,
            color=figures.COLOURS[0],
            label="probe, validation",
        )
        if tuned:
            at = [names.index(b) for b in tuned]
            mean, low, high = (100 * np.asarray(x) for x in zip(*tuned.values(), strict=True))
            axes[1].errorbar(
                at,
                mean,
                [mean - low, high - mean],
                fmt="s-",
                ms=3,
                capsize=2,
                color=figures.COLOURS[1],
                label="block tuned, test",
            )
        if "probe" in run.results:
            mean, low, high = (100 * x for x in run.results["probe"]["test"])
            axes[1].axhline(mean, color=figures.COLOURS[2], lw=1, label="plain probe, test")
            axes[1].axhspan(low, high, color=figures.COLOURS[2], alpha=0.15, lw=0)
        axes[1].set(title="accuracy, %")
        for axis in axes:
            figures.names_below(axis, names)
        figures.legend_below(figure, axes[1])
        return figures.Drawn(f"blocks-{name}", figure)
