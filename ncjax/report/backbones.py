"""What the page says of backbones beside one another: the scatter, what predicts transfer, and the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section, file_stem
from ncjax.report.tables import Cell, Table, number, percent, text, trusted, whole, wilson

Cells = dict[str, dict[str, dict[str, Any]]]


def _names(run: Finished) -> dict[str, str]:
    """Backbones as short as they stay distinct."""
    short = {b: Path(b.split(":")[-1]).stem for b in run.config["backbones"]}
    return short if len(set(short.values())) == len(short) else {b: b for b in short}


def _scatter(run: Finished, stem: str) -> figures.Drawn:
    """Test accuracy of the probe over NC1 on train, a panel a target, with intervals of both."""
    cells, names = run.results["cells"], _names(run)
    with mpl.rc_context(figures.STYLE):
        figure, axes = figures.grid(len(cells), 3, 2.8)
        for axis, (target, many) in zip(axes, cells.items(), strict=True):
            for i, (backbone, cell) in enumerate(many.items()):
                entry = cell["layers"][cell["penultimate"]]["train"]
                x, y = entry["nc1"], cell["test_accuracy"]
                if x is None:
                    continue
                low, high = (x if v is None else v for v in entry["interval"]["nc1"])
                below, above = wilson(y, cell["data"]["test"]["size"])
                axis.errorbar([x], [100 * y], [[100 * (y - below)], [100 * (above - y)]],
                              [[max(x - low, 0)], [max(high - x, 0)]], ms=4, lw=0.8,
                              fmt="osD^"[i // len(figures.COLOURS) % 4],
                              color=figures.COLOURS[i % len(figures.COLOURS)], label=names[backbone])
            figures.log_axis(axis, "x")
            axis.set(title=target, xlabel="NC1, train")
        axes[0].set_ylabel("probe, test accuracy, %")
        figures.legend_below(figure, axes[0])
        return figures.Drawn(f"scatter-{stem}", figure)


def _layers(run: Finished, stem: str) -> figures.Drawn:
    """NC1 over its floor, train, over depth: a panel a target, a line a backbone."""
    cells, names = run.results["cells"], _names(run)
    with mpl.rc_context(figures.STYLE):
        figure, axes = figures.grid(len(cells), 3, 2.8)
        for axis, many in zip(axes, cells.values(), strict=True):
            for i, (backbone, cell) in enumerate(many.items()):
                values = [np.nan if e["train"]["nc1_over_floor"] is None else e["train"]["nc1_over_floor"]
                          for e in cell["layers"].values()]
                axis.plot(np.linspace(0, 1, len(values)), values, ("-", "--", ":")[i // len(figures.COLOURS) % 3], lw=1,
                          color=figures.COLOURS[i % len(figures.COLOURS)], label=names[backbone])
            axis.set(xlabel="depth")
        for axis, target in zip(axes, cells, strict=True):
            axis.set_title(target)
        axes[0].set_ylabel("NC1 / floor, train")
        figures.legend_below(figure, axes[0])
        return figures.Drawn(f"depth-{stem}", figure)


def _table(run: Finished, stem: str) -> Table:
    names, rows = _names(run), []
    for target, many in run.results["cells"].items():
        for backbone, cell in many.items():
            at = f"{run.name}/results.json: cells.{target}.{backbone}."
            entry, count = cell["layers"][cell["penultimate"]]["train"], cell["data"]["test"]["size"]
            found = cell["predictors"]
            rows.append([text(f"{target}, {names[backbone]}"), whole(cell["image_size"], at + "image_size"),
                         percent(cell["test_accuracy"], at + "test_accuracy", count),
                         percent(cell["knn"]["test"], at + "knn.test", count),
                         percent(found["train_accuracy"], at + "predictors.train_accuracy"),
                         *(trusted(entry, m, f"{at}layers.{cell['penultimate']}.train.{m}") for m in ("nc1", "cdnv")),
                         *(number(found[m], f"{at}predictors.{m}") for m in ("nc1_over_floor", "numerical_rank")),
                         *(whole(found[m], f"{at}predictors.{m}") for m in ("width", "parameters"))])
    columns = ["target, backbone", "pixels", "probe test % [95 %]", "kNN test % [95 %]", "probe train %",
               "NC1 train [95 %]", "CDNV train [95 %]", "NC1 / floor", "numerical rank", "D", "parameters"]
    c = run.config
    return Table(f"pairs_{stem}", f"Every backbone on every target, at the penultimate layer. At most {c['train_images']} "
                 f"training, {c['val_images']} validation and {c['test_images']} test images a target; regularisation of "
                 f"the probe chosen on validation; {c['neighbours']} neighbours by cosine.", columns, rows)


def _cell(found: dict[str, Any] | list[Any] | None, source: str) -> Cell:
    if found is None:
        return text("–")
    value, low, high, count = found
    return Cell(value, f"{value:+.2f} [{low:+.2f}, {high:+.2f}]", f"{source} ({count} backbones)")


def _correlations(run: Finished, stem: str, how: str, title: str) -> Table:
    r = run.results
    rows = [[text(r["predictors"][name]), *(_cell(both[how][t], f"{run.name}/results.json: correlations.{name}.{how}.{t}")
                                            for t in ("mean", *r["cells"]))] for name, both in r["correlations"].items()]
    return Table(f"{how}_{stem}", f"{title} of each predictor with the probe's test accuracy over backbones. Intervals: "
                 "95 %, bootstrap over backbones, the same draw for every target.",
                 ["predictor", "mean over targets", *r["cells"]], rows)


def backbones(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run of the study."""
    sections = []
    for run in runs:
        r, stem = run.results, file_stem("on", run.name)
        weakest = run.config["weakest"]
        judged = [[text(claim), text(r["claims"][claim]), _cell(
            r["layers"] if claim == "C10" else r["correlations"]["nc1" if claim == "C1" else "cdnv"]["spearman"]["mean"],
            f"{run.name}/results.json"), text(word)] for claim, word in r["verdicts"].items()]
        rule = ("The rule, fixed before the run: supported if the interval of the mean Spearman correlation is below 0, "
                f"not supported if it is above {weakest:g}, else undecided. C12 needs CDNV (shown) and numerical rank to "
                "agree.")
        verdict = Table(f"verdicts_{stem}", rule, ["claim", "says", "Spearman [95 %]", "verdict"], judged)
        intro = ("A low NC1 on the training images implies that they are nearly separable, so part of any correlation is "
                 "no discovery: read it beside the probe's training accuracy, kNN, the network's size and its source "
                 "accuracy, which predict too. NC1 of one target compares across backbones (the same images), not across "
                 "targets.")
        title = "Which backbone transfers, and does collapse say so?" + (f" ({run.name})" if len(runs) > 1 else "")
        sections.append(Section(title, intro, [
            ("Test accuracy of the probe over NC1 on the target's training images, 95 % intervals of both.",
             _scatter(run, stem)),
            ("NC1 over its floor along each network, from the first block to the last.", _layers(run, stem))],
            [verdict, _correlations(run, stem, "spearman", "Spearman's correlation"),
             _correlations(run, stem, "weighted_kendall", "Weighted Kendall correlation"), _table(run, stem)]))
    return sections
