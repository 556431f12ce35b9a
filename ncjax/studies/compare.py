"""Methods side by side on few labels: nested subsets, paired seeds, the same search for every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.roles import METHOD
from ncjax.core.values import NATURAL, SHARE, Items, Range
from ncjax.evidence import intervals
from ncjax.evidence.claims import compared
from ncjax.evidence.paper import CLAIMS, Evidence
from ncjax.networks.load import Init
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section, file_stem, named
from ncjax.report.tables import CHANCE, Cell, Row, Table, chance, in_percent, number, of_rows, percent, spread, text
from ncjax.runs.run import Run
from ncjax.transfer import tuning_claims
from ncjax.transfer.few_shot import Bench, FewLabels
from ncjax.transfer.grid_search import Found, Search
from ncjax.transfer.program import Budget

MARGIN = 0.01  # of accuracy that does not matter
# The paper's comparison: no block tuned, one (with and without the skip, and the control for it), all.
METHODS = ["tuning.probe", "tuning.layer_ft", "tuning.layer_ft_scaled", "tuning.scl_ft", "tuning.full_ft"]
REFERENCES = ("tuning.layer_ft", "tuning.layer_ft_scaled", "tuning.full_ft")


def summarise(found: Found) -> dict[str, Any]:
    """Means over seeds with 95 % t intervals, the worst seed, and what it cost."""
    cells = found.cells

    def over(value: Any) -> list[float] | None:
        return intervals.mean_if_known([value(c) for c in cells])

    first = cells[0]
    return {
        "hyper": found.hyper or {"l2": [c["l2"] for c in cells], "at_end": [c["l2_at_end"] for c in cells]},
        "grid": {**found.grid, "widened": found.widened, "at_end": found.at_end()} if found.hyper else None,
        "worst": min(c["test"] for c in cells),
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
        "peak_bytes": max((c["peak_bytes"] for c in cells if c.get("peak_bytes")), default=None),
        "diverged": found.diverged,
        "runs": found.runs,
        "seeds": {
            name: [c[name] for c in cells] for name in ("test", "val", "train", "nc1_readout_test", "nc1_readout_train")
        },
    }


def _found(claim: str, x: dict[str, Any]) -> str:
    """What a claim rests on in a setting."""
    if claim == "C2":
        words = (intervals.signed((c["value"], c["low"], c["high"]) if (c := x[s]) else None) for s in ("test", "train"))
        return "Spearman {}, of training images {}".format(*words)
    points = intervals.points(x["accuracy"]["difference"], sign=True) + " points"
    if claim == "C13":
        return f"{points} for {in_percent(x['share'])} of the parameters"
    if claim == "C16":
        return f"gap {intervals.points(x['gap'], sign=True)}, accuracy {points}"
    ratio = x["log_nc1_readout"]
    return f"{points}, NC1 {'–' if ratio is None else '{:.2f} [{:.2f}, {:.2f}]'.format(*np.exp(ratio))} times layer FT's"


def run(
    *,
    run: Run,
    init: Init,
    target: FewLabels = FewLabels(),
    methods: Annotated[list[str], METHOD, Items(least=1, distinct=True)] = METHODS,
    references: Annotated[list[str] | None, METHOD, Items(distinct=True)] = None,
    layer: str | None = None,
    shots: Annotated[list[int], NATURAL, Items(least=1, distinct=True)] = [5, 20],
    margin: Annotated[float, SHARE] = MARGIN,
    weakest: Annotated[float, Range("from 0 to 1, a correlation", 0, 1)] = 0.3,
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
      weakest: the rule for C2, fixed before the run: see `transfer.tuning_claims.RULES`.
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
    claims: dict[str, dict[str, Any]] = {}
    largest = dataset.largest("test")
    for count in shots:
        for method in methods:
            found = bench.search(method, layer=layer, shots=count)
            entry = table.setdefault(str(count), {})[method] = summarise(found)
            run.say(
                f"{count:>4} per class  {method:<24} test {intervals.percent(entry['test'])}"
                f"{chance(entry['test'][1], largest)}{_diverged(entry)}, worst {100 * entry['worst']:.1f}  train-test "
                f"{intervals.percent(entry['gap'])}  {entry['seconds'][0]:.0f} s  {found.describe()}"
            )
        for entry in table[str(count)].values():
            entry["paired"] = {
                name: compared(entry["seeds"]["test"], table[str(count)][name]["seeds"]["test"], margin=margin)._asdict()
                for name in references
            }
        claims[str(count)] = tuning_claims.judge(table[str(count)], margin=margin, weakest=weakest)
        run.say(f"{count:>4} per class  " + "  ".join(f"{name}: {x['verdict']}" for name, x in claims[str(count)].items()))
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
        "claims": claims,
    }


def _hyper(entry: dict[str, Any], config: dict[str, Any]) -> str:
    """The learning rate and weight decay of a search, or a solved classifier's strengths; a star at an end of the grid."""
    hyper = entry["hyper"]
    if "lr" not in hyper:
        found = dict.fromkeys(f"{l2:g}{'*' if end else ''}" for l2, end in zip(hyper["l2"], hyper["at_end"], strict=True))
        return "l2 " + ", ".join(found)
    grid = entry.get("grid") or {"lr": config["lr_grid"], "widened": 0}  # records of before grids widened hold none
    edge = "*" if hyper["lr"] in (min(grid["lr"]), max(grid["lr"])) else ""
    return f"{hyper['lr']:g}{edge}, {hyper['weight_decay']:g}{' (widened)' if grid['widened'] else ''}"


def _diverged(entry: dict[str, Any]) -> str:
    """How many of the runs behind a choice and its mean diverged; "" for none."""
    count = entry.get("diverged", 0)
    return f" ({count} of {entry.get('runs', len(entry['seeds']['test']))} runs diverged)" if count else ""


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


INTRO = (
    "Every method sees the same images and seeds, subsets are nested, and methods that train take the same "
    "steps and search the same grid, which widens itself alike (a star: the best is still at its "
    "end, so that a wider one might do better). "
    "Solved classifiers search strengths of their own, on every seed's validation images. Two methods differ "
    "where the interval of their paired difference leaves 0 out (of many such intervals, one in twenty does "
    "by chance), and are level where a = says so; else they are not told apart."
)


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every comparison of methods on few labels."""
    sections = []
    for run in runs:
        stem = file_stem("methods", run.name)
        drawn = [("Test accuracy over training images per class, 95 % t intervals over seeds.", _over_shots(run, stem))]
        tables = [_methods(run, stem), _claims(run)]
        verdicts = tuple(_verdict(run, count) for count in run.results["table"])
        sections.append(Section(f"Which method with few labels? {named(run)}", INTRO, drawn, tables, verdicts))
    return sections


def _methods(run: Finished, stem: str) -> Table:
    """A row for every number of images and method."""
    c = run.config
    caption = (
        f"{named(run)}: means over {c['seeds']} seeds with 95 % t intervals; differences are paired by seed. "
        f"Learning rate from {c['lr_grid']} and weight decay from {c['weight_decay_grid']} are the best on "
        f"validation over the first {c['tune_seeds']} of them; a grid whose best was at its end was widened "
        f"up to {c.get('widen', 0)} times. {c['steps']} steps of {c['batch_size']} images for every method that "
        "trains. "
        "Memory: by how much training raised the peak of the process's. "
        "NC1 at the penultimate layer, without the skip, and at the readout, what the "
        f"classifier reads. = marks methods within {100 * c['margin']:g} points by two one-sided tests at 5 %. " + CHANCE
    )
    rows = [_row(run, count, name) for count, entries in run.results["table"].items() for name in entries]
    return of_rows(stem, caption, rows)


def _row(run: Finished, count: str, name: str) -> Row:
    e, at = run.results["table"][count][name], f"{run.name}/results.json: table.{count}.{name}."

    def nc1(key: str) -> Cell:
        return number(e[key] and e[key][0], at + key)

    return [
        ("images per class, method", text(f"{count}, {figures.plain(name)}")),
        ("test % [95 %]", spread(e["test"], at + "test", run.results["data"]["test"].get("largest"))),
        ("worst seed %", percent(min(e["seeds"]["test"]), at + "seeds.test")),
        ("tuned %", percent(e["share"], at + "share")),
        *(
            (
                f"test − {figures.plain(ref)}",
                text("–") if name == ref else _difference(e["paired"][ref], f"{at}paired.{ref}.difference"),
            )
            for ref in run.results["references"]
        ),
        ("val %", spread(e["val"], at + "val")),
        ("train − test", spread(e["gap"], at + "gap")),
        ("lr, weight decay", text(_hyper(e, run.config) + _diverged(e))),
        ("NC1 train", nc1("nc1_train")),
        ("NC1 test", nc1("nc1_test")),
        ("NC1 readout, train", nc1("nc1_readout_train")),
        ("NC1 readout, test", nc1("nc1_readout_test")),
        ("FLOPs a step", number(e["flops_per_step"], at + "flops_per_step")),
        ("seconds a run", number(e["seconds"][0], at + "seconds")),
        ("memory, MB", number((b := e.get("peak_bytes")) and b / 1e6, at + "peak_bytes")),
    ]


def _claims(run: Finished) -> Table:
    """The claims on fine-tuning in every setting of a run."""
    rows = [
        [text(f"{claim}, {count} per class"), text(CLAIMS[claim].says), text(_found(claim, x)), text(x["verdict"])]
        for count, found in run.results.get("claims", {}).items()  # records of before hold none
        for claim, x in found.items()
    ]
    rule = tuning_claims.RULES.format(weakest=run.config.get("weakest", 0), margin=100 * run.config["margin"])
    return Table(f"claims_{file_stem('on', run.name)}", rule, ["claim", "says", "found", "verdict"], rows)


def claims(runs: Sequence[Finished]) -> list[Evidence]:
    """What finished comparisons say of the paper's claims. Of records of before they were judged, C13 by today's rule."""
    out = []
    for run in runs:
        found = run.results.get("claims")
        if found is None:
            found = {
                count: {"C13": tuning_claims.one_block_or_all(entries, run.config.get("margin", MARGIN))}
                for count, entries in run.results["table"].items()
                if {tuning_claims.SKIP, tuning_claims.FULL} <= entries.keys()
            }
        for count, each in found.items():
            setting = f"{named(run)}, {count} images per class, {run.config['seeds']} seeds"
            out += [Evidence(claim, setting, _found(claim, x), x["verdict"]) for claim, x in each.items()]
    return out


def _over_shots(run: Finished, name: str) -> figures.Drawn:
    """Test accuracy over training images per class, a line a method, with intervals over seeds."""
    with figures.panel(6.2, 4.2) as (figure, axis):
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
