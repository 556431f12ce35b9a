"""Methods side by side on few labels: nested subsets, paired seeds, the same search for every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.roles import METHOD
from ncjax.core.values import NATURAL, SHARE, Items
from ncjax.evidence import intervals
from ncjax.evidence.claims import compared
from ncjax.networks.load import Init
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section, file_stem, named
from ncjax.report.tables import CHANCE, Cell, Table, chance, in_percent, number, percent, spread, text
from ncjax.runs.run import Run
from ncjax.transfer.few_shot import Bench, Budget, FewLabels
from ncjax.transfer.grid_search import Search

# The paper's comparison: no block tuned, one (with and without the skip, and the control for it), all.
METHODS = ["tuning.probe", "tuning.layer_ft", "tuning.layer_ft_scaled", "tuning.scl_ft", "tuning.full_ft"]
SKIP, NO_SKIP = "tuning.scl_ft", "tuning.layer_ft"
REFERENCES = (NO_SKIP, "tuning.layer_ft_scaled", "tuning.full_ft")


def summarise(cells: list[dict[str, Any]], hyper: dict[str, float]) -> dict[str, Any]:
    """Means over seeds with 95 % t intervals, and what it cost."""

    def over(value: Any) -> list[float] | None:
        return intervals.mean_if_known([value(c) for c in cells])

    first = cells[0]
    return {
        "hyper": hyper or {"l2": [c["l2"] for c in cells], "at_end": [c["l2_at_end"] for c in cells]},
        **{
            name: over(lambda c, name=name: c[name])
            for name in (
                f"{m}{at}_{split}"
                for m in ("nc1", "nc1_over_floor")
                for at in ("", "_readout")
                for split in ("train", "test")
            )
        },
        **{name: list(intervals.share([c[name] for c in cells])) for name in ("test", "val", "train")},
        "gap": over(lambda c: c["train"] - c["test"]),
        "tuned": first["tuned"],
        "total": first["total"],
        "share": first["tuned"] / first["total"],
        "seconds": over(lambda c: c["seconds"]),
        "flops_per_step": first.get("flops_per_step"),
        "diverged": sum(bool(c.get("diverged")) for c in cells),
        "seeds": {name: [c[name] for c in cells] for name in ("test", "val", "nc1_readout_test")},
    }


def what_the_skip_does(entries: dict[str, dict[str, Any]], margin: float) -> dict[str, Any]:
    """C14, SCL FT against layer FT: accuracy, and the logarithm of NC1 of held-out features where the classifier reads.

    "supported" where the accuracy is ahead and NC1 lower beyond their 95 % intervals over seeds; "contradicted" where one
    of them goes the other way beyond its own; "half supported" where one does as claimed; else "undecided".
    """
    ours, theirs = entries[SKIP]["seeds"], entries[NO_SKIP]["seeds"]
    accuracy = compared(ours["test"], theirs["test"], margin=margin)
    found: dict[str, Any] = {"accuracy": accuracy._asdict(), "log_nc1_readout": None}
    lower = higher = False
    values = [ours["nc1_readout_test"], theirs["nc1_readout_test"]]
    if all(v is not None and v > 0 for each in values for v in each):
        ratio = intervals.paired(*(np.log(each).tolist() for each in values))
        found["log_nc1_readout"] = list(ratio)
        lower, higher = ratio.high < 0, ratio.low > 0
    ahead, behind = accuracy.difference.low > 0, accuracy.difference.high < 0
    word = "contradicted" if behind or higher else "supported" if ahead and lower else "undecided"
    return {**found, "verdict": "half supported" if word == "undecided" and (ahead or lower) else word}


def _about_the_skip(found: dict[str, Any]) -> str:
    ratio = found["log_nc1_readout"]
    points = intervals.points(found["accuracy"]["difference"])
    nc1 = "–" if ratio is None else "{:.2f} [{:.2f}, {:.2f}] times".format(*np.exp(ratio))
    return (
        f"the skip adds {points} points of test accuracy, and makes NC1 (test, readout) {nc1} that of layer FT: C14 "
        f"{found['verdict']}"
    )


def run(
    *,
    run: Run,
    init: Init,
    target: FewLabels = FewLabels(),
    methods: Annotated[list[str], METHOD, Items(least=1, distinct=True)] = METHODS,
    references: Annotated[list[str] | None, METHOD, Items(distinct=True)] = None,
    layer: str | None = None,
    shots: Annotated[list[int], NATURAL, Items(least=1, distinct=True)] = [5, 20],
    margin: Annotated[float, SHARE] = 0.01,
    search: Search = Search(),
    budget: Budget = Budget(),
) -> dict[str, Any]:
    """Compares methods at the same budget, every choice made on validation, and the test set looked at once a run.

    Args:
      run: where it happens; a sweep that was stopped goes on with the run that was under way.
      init: the network.
      target: the data set.
      methods: functions of `ncjax.tuning`, or one's own.
      references: methods that every other one is compared with, seed by seed; None for those of layer FT, its scaled
        control and full fine-tuning that are among the methods.
      layer: blocks for the methods that take one; None for their own choice.
      shots: training images per class, nested; 0 for all. Validation has as many at most, so the labels are twice that.
      margin: difference in test accuracy that does not matter, fixed before the run: two methods are called level where two
        one-sided tests put them within it.
      search: the grid, the same for every method.
      budget: of every training run.
    """
    references = [m for m in REFERENCES if m in methods] if references is None else references
    for name in references:
        if name not in methods:
            raise UserError(f"references: {name} is not among the methods {', '.join(methods)}")
    seeds = search.seeds
    if seeds < 2:
        raise UserError(f"seeds={seeds}: an interval over seeds needs two")
    bench = Bench(run, init, target, search, budget)
    for count in reversed(shots):  # nothing is trained before every method and every subset is known to be possible
        dataset = bench.subsets.get(count, 0)
    run.announce(dataset, bench.describe())
    for method in methods:
        tuned = bench.plan(method, layer, dataset, 0).tuned
        run.say(f"  {method:<24} tunes {', '.join(tuned)}")
    table: dict[str, dict[str, Any]] = {}
    skip: dict[str, dict[str, Any]] = {}
    largest = dataset.largest("test")
    for count in shots:
        for method in methods:
            cells, hyper = bench.search(method, layer=layer, shots=count)
            entry = table.setdefault(str(count), {})[method] = summarise(cells, hyper)
            run.say(
                f"{count:>4} per class  {method:<24} test {intervals.percent(entry['test'])}"
                f"{chance(entry['test'][1], largest)}{_diverged(entry)}  train-test "
                f"{intervals.percent(entry['gap'])}  {entry['seconds'][0]:.0f} s  "
                + "  ".join(f"{k} {v:g}" for k, v in hyper.items())
            )
        for entry in table[str(count)].values():
            entry["paired"] = {
                name: compared(entry["seeds"]["test"], table[str(count)][name]["seeds"]["test"], margin=margin)._asdict()
                for name in references
            }
        if {SKIP, NO_SKIP} <= table[str(count)].keys():
            skip[str(count)] = what_the_skip_does(table[str(count)], margin)
            run.say(f"{count:>4} per class  {_about_the_skip(skip[str(count)])}")
    run.table(
        f"test accuracy on {target.data}, mean over {seeds} seeds with 95 % t intervals",
        ["method", "tuned", *(f"{count} per class" for count in shots)],
        [
            [
                method,
                f"{100 * table[str(shots[0])][method]['share']:.2f} %",
                *(
                    intervals.percent(e["test"]) + chance(e["test"][1], largest) + _diverged(e)
                    for e in (table[str(count)][method] for count in shots)
                ),
            ]
            for method in methods
        ],
    )
    if any(chance(e["test"][1], largest) for entries in table.values() for e in entries.values()):
        run.say(CHANCE)
    dataset = bench.subsets.get(shots[-1], 0)
    return {
        "data": dataset.describe(),
        "network": bench.describe(),
        "methods": methods,
        "references": references,
        "shots": shots,
        "table": table,
        "skip": skip,
    }


def _hyper(hyper: dict[str, Any], config: dict[str, Any]) -> str:
    """The learning rate and weight decay of a search, or a solved classifier's strengths; a star at an end of the grid."""
    if "lr" not in hyper:
        found = dict.fromkeys(f"{l2:g}{'*' if end else ''}" for l2, end in zip(hyper["l2"], hyper["at_end"], strict=True))
        return "l2 " + ", ".join(found)
    edge = "*" if hyper["lr"] in (min(config["lr_grid"]), max(config["lr_grid"])) else ""
    return f"{hyper['lr']:g}{edge}, {hyper['weight_decay']:g}"


def _diverged(entry: dict[str, Any]) -> str:
    """How many of the runs behind a mean diverged; "" for none."""
    count = entry.get("diverged", 0)
    return f" ({count} of {len(entry['seeds']['test'])} diverged)" if count else ""


def _verdict(run: Finished, count: str) -> str:
    """Which method validation would choose, and whether it beats the probe."""
    entries = run.results["table"][count]
    best = max(entries, key=lambda name: entries[name]["val"][0])
    e = entries[best]
    said = (
        f"{named(run)}, {count} images per class: {figures.plain(best)} is best on validation, test "
        f"{intervals.percent(e['test'])} for {in_percent(e['share'])} of the parameters"
    )
    probe = next((name for name in entries if figures.plain(name) == "probe"), None)
    if probe in (None, best):
        return said + "."
    gain = compared(e["seeds"]["test"], entries[probe]["seeds"]["test"], margin=run.config["margin"])
    return f"{said}: {intervals.points(gain.difference, sign=True)} points over the probe, {gain.word}."


def _difference(found: dict[str, Any], source: str) -> Cell:
    cell = spread(found["difference"], source)
    return cell._replace(text=cell.text + (" =" if found["word"] == "level" else ""))


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every comparison of methods on few labels."""
    sections = []
    for run in runs:
        table, refs, rows = run.results["table"], run.results["references"], []
        for count, entries in table.items():
            for name, e in entries.items():
                at = f"{run.name}/results.json: table.{count}.{name}."
                rows.append(
                    [
                        text(f"{count}, {figures.plain(name)}"),
                        spread(e["test"], at + "test", run.results["data"]["test"].get("largest")),
                        percent(e["share"], at + "share"),
                        *(
                            _difference(e["paired"][ref], f"{at}paired.{ref}.difference") if name != ref else text("–")
                            for ref in refs
                        ),
                        spread(e["val"], at + "val"),
                        spread(e["gap"], at + "gap"),
                        text(_hyper(e["hyper"], run.config) + _diverged(e)),
                        *(
                            number(e[k] and e[k][0], at + k)
                            for k in ("nc1_train", "nc1_test", "nc1_readout_train", "nc1_readout_test")
                        ),
                        number(e["flops_per_step"], at + "flops_per_step"),
                        number(e["seconds"][0], at + "seconds"),
                    ]
                )
        columns = [
            "images per class, method",
            "test % [95 %]",
            "tuned %",
            *(f"test − {figures.plain(ref)}" for ref in refs),
            "val %",
            "train − test",
            "lr, weight decay",
            "NC1 train",
            "NC1 test",
            "NC1 readout, train",
            "NC1 readout, test",
            "FLOPs a step",
            "seconds a run",
        ]
        c = run.config
        caption = (
            f"{named(run)}: means over {c['seeds']} seeds with 95 % t intervals; differences are paired by seed. "
            f"Learning rate from {c['lr_grid']} and weight decay from {c['weight_decay_grid']} are the best on "
            f"validation over the first {c['tune_seeds']} of them; {c['steps']} steps of {c['batch_size']} images "
            "for every method that trains. NC1 at the penultimate layer, without the skip, and at the readout, what the "
            f"classifier reads. = marks methods within {100 * c['margin']:g} points by two one-sided tests at 5 %. "
            + CHANCE
        )
        stem = file_stem("methods", run.name)
        intro = (
            "Every method sees the same images and seeds, subsets are nested, and methods that train take the same "
            "steps and search the same grid (a star: the best is at its end, so that a wider one might do better). "
            "Solved classifiers search strengths of their own, on every seed's validation images. Two methods differ "
            "where the interval of their paired difference leaves 0 out (of many such intervals, one in twenty does "
            "by chance), and are level where a = says so; else they are not told apart."
        )
        intro += "".join(f" {count} per class: {_about_the_skip(s)}." for count, s in run.results["skip"].items())
        sections.append(
            Section(
                f"Which method with few labels? {named(run)}",
                intro,
                [("Test accuracy over training images per class, 95 % t intervals over seeds.", _over_shots(run, stem))],
                [Table(stem, caption, columns, rows)],
                tuple(_verdict(run, count) for count in table),
            )
        )
    return sections


def _over_shots(run: Finished, name: str) -> figures.Drawn:
    """Test accuracy over training images per class, a line a method, with intervals over seeds."""
    with mpl.rc_context(figures.STYLE):
        figure, (axis,) = figures.grid(1, 1)
        figure.set_size_inches(6.2, 4.2)
        counts = list(run.results["table"])
        for i, method in enumerate(run.results["methods"]):
            entries = [run.results["table"][count][method]["test"] for count in counts]
            at = np.arange(len(counts)) + 0.04 * (i - len(run.results["methods"]) / 2)  # side by side, not hidden
            mean, low, high = (100 * np.asarray(x) for x in zip(*entries, strict=True))
            axis.errorbar(
                at,
                mean,
                [mean - low, high - mean],
                fmt="o" + ("-", "--", ":")[i // len(figures.COLOURS)],
                ms=3,
                lw=1,
                capsize=2,
                color=figures.COLOURS[i % len(figures.COLOURS)],
                label=figures.plain(method),
            )
        axis.set_xticks(range(len(counts)), counts)
        axis.set(xlabel="training images per class", ylabel="test accuracy, %")
        figures.legend_below(figure, axis)
        return figures.Drawn(name, figure)
