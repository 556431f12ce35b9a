"""What the page says of sweeps: methods side by side on few labels, and which block to tune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ncjax.evidence import intervals
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.figures import plain
from ncjax.report.sections import Section, file_stem
from ncjax.report.tables import Cell, Table, number, percent, spread, text

SCORES = {"nc1_over_floor": "NC1 / floor", "cdnv": "CDNV", "logme": "LogME", "rgn": "RGN", "condition_number": "condition"}


def _hyper(hyper: dict[str, float], config: dict[str, Any]) -> str:
    """The learning rate and weight decay of a search; a star for a learning rate at an end of its grid."""
    if "lr" not in hyper:
        return "solved"
    edge = "*" if hyper["lr"] in (min(config["lr_grid"]), max(config["lr_grid"])) else ""
    return f"{hyper['lr']:g}{edge}, {hyper['weight_decay']:g}"


def _on(run: Finished) -> str:
    return f"{run.config['init'].split('/')[-1]} on {run.config['data']}"


def methods(runs: Sequence[Finished]) -> list[Section]:
    """A section for every comparison of methods on few labels."""
    sections = []
    for run in runs:
        table, refs, rows = run.results["table"], run.results["references"], []
        for count, entries in table.items():
            for name, e in entries.items():
                at = f"{run.name}/results.json: table.{count}.{name}."
                rows.append([text(f"{count}, {plain(name)}"), percent(e["share"], at + "share"),
                             text(_hyper(e["hyper"], run.config)),
                             *(spread(e[k], at + k) for k in ("val", "test", "gap")),
                             *(spread(e["paired"][ref], f"{at}paired.{ref}") if name != ref else text("–") for ref in refs),
                             number(e["nc1_test"] and e["nc1_test"][0], at + "nc1_test"),
                             number(e["flops_per_step"], at + "flops_per_step"),
                             number(e["seconds"][0], at + "seconds")])
        columns = ["images a class, method", "tuned %", "lr, weight decay", "val %", "test % [95 %]", "train − test",
                   *(f"test − {plain(ref)}" for ref in refs), "NC1 test", "FLOPs a step", "seconds a run"]
        c = run.config
        caption = (f"{_on(run)}: means over {c['seeds']} seeds with 95 % t intervals; differences are paired by seed. "
                   f"Learning rate from {c['lr_grid']} and weight decay from {c['weight_decay_grid']} are the best on "
                   f"validation over the first {c['tune_seeds']} of them; {c['steps']} steps of {c['batch_size']} images "
                   "for every method that trains. NC1 at the penultimate layer.")
        stem = file_stem("methods", run.name)
        intro = ("Every method sees the same images and seeds, subsets are nested, and methods that train take the same "
                 "steps and search the same grid (a star: the best is at its end, so that a wider one might do better). "
                 "Solved classifiers search strengths of their own, on every seed's validation images. Two methods differ "
                 "where the interval of their paired difference leaves 0 out; of many such intervals, one in twenty does "
                 "by chance.")
        sections.append(Section(f"Which method with few labels? {_on(run)}", intro, [
            ("Test accuracy over training images a class, 95 % t intervals over seeds.", figures.over_shots(run, stem))],
            [Table(stem, caption, columns, rows)]))
    return sections


def _scores(run: Finished, stem: str) -> Table:
    r, rows = run.results, []
    found = r["scores"][0]
    for block in r["blocks"]:
        at = f"{run.name}/results.json: "
        rows.append([text(block), percent(r["costs"][block]["share"], f"{at}costs.{block}.share"),
                     percent(r["costs"][block]["flops"], f"{at}costs.{block}.flops"),
                     percent(found[block]["probe_accuracy"], f"{at}scores.0.{block}.probe_accuracy"),
                     *(number(found[block][name], f"{at}scores.0.{block}.{name}") for name in SCORES),
                     spread(r.get("accuracy", {}).get(block), f"{at}accuracy.{block}"),
                     text(", ".join(rule for rule, picks in r["picks"].items() if picks[0] == block) or "–")])
    columns = ["block", "tuned %", "FLOPs %", "probe val %", *SCORES.values(), "tuned: test % [95 %]", "chosen by"]
    c = run.config
    return Table(f"blocks_{stem}", f"{_on(run)}, {c['shots']} images a class. Scores and choices of seed 0, before any "
                 f"tuning; FLOPs: a training step of {plain(c['method'])} above the kept prefix, as a share of full "
                 "fine-tuning's. Test accuracy: means over seeds with 95 % t intervals.", columns, rows)


def _regrets(run: Finished, stem: str) -> Table:
    r = run.results
    order = sorted(r["regret"], key=lambda rule: r["regret"][rule][0])
    rows = [[text(rule), text(r["meaning"][rule]), text(", ".join(dict.fromkeys(r["picks"].get(rule, ["any"])))),
             spread(r["regret"][rule], f"{run.name}/results.json: regret.{rule}")] for rule in order]
    return Table(f"regret_{stem}", f"Test accuracy that each rule loses against {r['best']}, the best block in "
                 "hindsight; means over seeds with 95 % t intervals. The best of several noisy means is too good by some "
                 "noise, and so is every regret; differences between rules are not.",
                 ["rule", "means", "chooses", "regret % [95 %]"], rows)


def pooled(runs: Sequence[Finished]) -> Section:
    """Every rule's regret over all studies in which every block was tuned; a study counts once."""
    shared = [rule for rule in runs[0].results["regret"] if all(rule in run.results["regret"] for run in runs)]
    losses = {rule: [run.results["regret"][rule][0] for run in runs] for rule in shared}
    order = sorted(losses, key=lambda rule: sum(losses[rule]))
    best, rows = order[0], []
    for rule in order:
        apart: Cell = text("–") if rule == best else spread(intervals.paired(losses[rule], losses[best]))
        rows.append([text(rule), text(runs[0].results["meaning"][rule]), spread(intervals.mean(losses[rule])),
                     spread((max(losses[rule]),) * 3)._replace(text=f"{100 * max(losses[rule]):.1f}"), apart])
    sure = [rule for rule in order[1:] if intervals.paired(losses[rule], losses[best]).low > 0]
    unsure = [rule for rule in order[1:] if rule not in sure]
    intro = (f"Over {len(runs)} studies, which may share backbones or targets, {best} loses least. Its lead is beyond the "
             f"interval over {', '.join(sure) or 'no rule'}; not over {', '.join(unsure) or 'no other'}.")
    table = Table("regret", "Regret in test accuracy, % : mean over studies with 95 % t interval, the worst study, and the "
                  f"difference from {best}, paired by study.", ["rule", "means", "regret % [95 %]", "worst %",
                                                                f"more than {best} [95 %]"], rows)
    return Section("Which rule to trust?", intro, [], [table])


def blocks(runs: Sequence[Finished]) -> list[Section]:
    """A section for every backbone and target whose blocks were ranked, and one over those where all were tuned."""
    sections = []
    for run in runs:
        stem = file_stem("on", run.name)
        drawn = [("What the blocks' features say before any tuning, and, where they were tuned, how accurate that was.",
                  figures.by_block(run, stem))]
        tables = [_scores(run, stem)]
        if "regret" in run.results:
            tables.append(_regrets(run, stem))
        intro = f"Rule {run.results['rule']} ({run.results['meaning'][run.results['rule']]}): tune {run.results['choice']}."
        sections.append(Section(f"Which block to tune? {_on(run)}", intro, drawn, tables))
    judged = [run for run in runs if "regret" in run.results]
    return sections + ([pooled(judged)] if len(judged) > 1 else [])
