"""Which classes have collapsed, which are recognised, and which mistakes are made: parts of a section."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.tables import Cell, Table, number, percent, text, whole

SHOWN = 40  # classes up to which a confusion matrix has names


def parts(run: Finished, stem: str) -> tuple[list[tuple[str, figures.Drawn]], list[Table]]:
    """Figures and tables of a run that was looked at class by class; none where it was not."""
    if "by_class" not in run.results:
        return [], []
    drawn = []
    if "plane" in run.results:
        drawn.append(
            (
                f"{run.name}: test features at {run.results['penultimate']} in the plane, before training and after, "
                "coloured by class: the two directions of largest variance and, where images are enough, t-SNE (which "
                "keeps neighbourhoods, and no distances).",
                _plane(run, stem),
            )
        )
    if "confusion" in run.results["by_class"]["test"]:
        drawn.append(
            (f"{run.name}: what the {run.results['by_class']['by']} takes for what, on test.", _confusion(run, stem))
        )
    if run.results.get("mistakes") and (run.folder / run.results["pictures"]["file"]).is_file():
        drawn.append((f"{run.name}: the wrong answers on test that it is surest of.", _mistakes(run, stem)))
    return drawn, [_table(run, stem)]


def _taken_for(test: dict[str, Any], k: int, names: list[str]) -> Cell:
    """The class that a class is most often taken for, and how often."""
    taken = test["taken_for"][k]
    return text("–" if taken is None else f"{names[taken[0]]} ({taken[1]})")


def _table(run: Finished, stem: str) -> Table:
    """A row a class, the least accurate first, and the mean."""
    names, (train, test) = run.results["class_names"], (run.results["by_class"][s] for s in ("train", "test"))
    at = f"{run.name}/results.json: by_class."
    order = sorted(range(len(names)), key=lambda k: (test["accuracy"][k] is None, test["accuracy"][k] or 0))
    nc1 = {s: found["nc1"] or [None] * len(names) for s, found in (("train", train), ("test", test))}
    rows = [
        [
            text(names[k]),
            percent(test["accuracy"][k], f"{at}test.accuracy.{k}", test["counts"][k]),
            percent(train["accuracy"][k], f"{at}train.accuracy.{k}"),
            number(nc1["train"][k], f"{at}train.nc1.{k}"),
            number(nc1["test"][k], f"{at}test.nc1.{k}"),
            _taken_for(test, k, names),
            whole(train["counts"][k], f"{at}train.counts.{k}"),
            whole(test["counts"][k], f"{at}test.counts.{k}"),
        ]
        for k in order
    ]
    mean = {s: [x for x in values if x is not None] for s, values in nc1.items()}
    rows.append(
        [
            text("mean of classes"),
            *(percent(found["mean_accuracy"], f"{at}{s}.mean_accuracy") for s, found in (("test", test), ("train", train))),
            *(number(float(np.mean(mean[s])) if mean[s] else None) for s in ("train", "test")),
            text("–"),
            whole(sum(train["counts"])),
            whole(sum(test["counts"])),
        ]
    )
    columns = ["class", "test % [95 %]", "train %", "NC1 train", "NC1 test", "most often taken for", "images train", "test"]
    return Table(
        f"classes_{stem}",
        f"{run.name}, class by class, the least accurate first, by its {run.results['by_class']['by']}. "
        "NC1 of a class is (1/K) tr(Σ_k S_B⁺) at "
        f"{run.results['penultimate']}: small where its images lie close together beside the distances between classes.",
        columns,
        rows,
    )


def _plane(run: Finished, stem: str) -> figures.Drawn:
    """Points of up to ten classes in colour, those of the others in grey."""
    plane, names = run.results["plane"], run.results["class_names"]
    labels = np.asarray(plane["labels"])
    kinds = [kind for kind in ("pca", "tsne") if plane["before"][kind] and plane["after"][kind]]
    shown = np.unique(labels).tolist()[:10]
    with figures.panels(2 * len(kinds), 2 * len(kinds), 2.6, lines=False) as (figure, axes):
        for i, axis in enumerate(axes):
            when, kind = ("before", "after")[i % 2], kinds[i // 2]
            x = np.asarray(plane[when][kind])
            other = ~np.isin(labels, shown)
            axis.scatter(x[other, 0], x[other, 1], s=4, color=figures.NEAR, lw=0)
            for k in shown:
                here = labels == k
                colour = mpl.colormaps["tab10"](shown.index(k))
                axis.scatter(x[here, 0], x[here, 1], s=6, color=colour, lw=0, label=names[k])
            share = f", {100 * plane[when]['share']:.0f} % of the variance" if kind == "pca" else ""
            axis.set_title(f"{'PCA' if kind == 'pca' else 't-SNE'}, {when}{share}", fontsize=8)
            axis.set(xticks=[], yticks=[])
        figures.legend_below(figure, axes[0], 5)
        return figures.Drawn(f"plane-{stem}", figure)


def _confusion(run: Finished, stem: str) -> figures.Drawn:
    """Shares of each true class, numbers of images written in."""
    counts, names = np.asarray(run.results["by_class"]["test"]["confusion"], float), run.results["class_names"]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(9.0, 3.0 + 0.22 * min(len(names), SHOWN))
    with figures.panel(side, side, lines=False) as (figure, axis):
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axis.set(xlabel="said", ylabel="true class")
        if len(names) <= SHOWN:
            figures.names_below(axis, names)
            axis.set_yticks(range(len(names)), names, fontsize=7)
        if len(names) <= 20:
            for (i, j), n in np.ndenumerate(counts.astype(int)):
                if n:
                    shade = "white" if shares[i, j] > 0.5 else "black"
                    axis.text(j, i, str(n), ha="center", va="center", fontsize=6, color=shade)
        figure.colorbar(image, ax=axis, shrink=0.7, label="share of the true class")
        return figures.Drawn(f"confused-{stem}", figure)


def _mistakes(run: Finished, stem: str) -> figures.Drawn:
    """Thumbnails with the true class, what was said and its probability."""
    wrong, names = run.results["mistakes"], run.results["class_names"]
    strip = np.asarray(Image.open(run.folder / run.results["pictures"]["file"]).convert("RGB"))
    side = run.results["pictures"]["side"]
    with figures.panels(len(wrong), 6, 1.9, width=1.5, lines=False) as (figure, axes):
        for i, (axis, m) in enumerate(zip(axes, wrong, strict=True)):
            axis.imshow(strip[:, side * i : side * (i + 1)])
            axis.set_axis_off()
            said = f"said {names[m['said']][:18]} ({100 * m['probability']:.0f} %)"
            axis.set_title(f"{names[m['is']][:18]}\n{said}", fontsize=7)
        return figures.Drawn(f"mistakes-{stem}", figure, photo=True)
