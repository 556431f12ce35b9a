"""Figures as inline SVG. Every value drawn stands in a run's metrics.jsonl or results.json."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from ncjax.nc.uncertainty import NEAR_FLOOR
from ncjax.report.collect import Finished, series

# Okabe & Ito's palette: distinguishable with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
NEAR = "#aaaaaa"  # points near their no-signal floor
STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False,
         "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
         "svg.hashsalt": "ncjax"}
NAMES = {"nc1": "NC1", "nc2": "NC2 (class means)", "nc2_w": "NC2 (classifier)", "nc3": "NC3", "nc4": "NC4",
         "cdnv": "CDNV", "accuracy": "accuracy", "probe_accuracy": "probe accuracy"}


class Drawn(NamedTuple):
    """A figure and the name of its file."""

    name: str
    figure: Figure


def svg(drawn: Drawn) -> str:
    """The figure as an <svg> element that scales with the page; its name keeps ids unique there."""
    out, name = io.StringIO(), drawn.name
    with mpl.rc_context(STYLE):
        drawn.figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
                  rf'<svg viewBox="\1" role="img" style="max-width:{1.35 * width:.0f}px">', text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)


def png(drawn: Drawn, folder: Path) -> None:
    """Writes NAME.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        drawn.figure.savefig(folder / f"{drawn.name}.png", dpi=110, bbox_inches="tight")


def grid(count: int, columns: int, height: float = 2.3) -> tuple[Figure, list[Any]]:
    """A figure of `count` panels."""
    rows = -(-count // columns)
    figure = Figure(figsize=(3.1 * min(columns, count), height * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, min(columns, count))).ravel().tolist()
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def log_axis(axis: Any, which: str = "y") -> None:
    """Makes the x or y axis logarithmic, labelled with plain numbers."""
    getattr(axis, f"set_{which}scale")("log")
    own = getattr(axis, f"{which}axis")
    own.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    own.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    own.set_minor_formatter(mpl.ticker.NullFormatter())


def _names_below(axis: Any, names: Sequence[str]) -> None:
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)


def plain(method: str) -> str:
    """A fine-tuning method's name without its module."""
    return method.removeprefix("tuning.")


def legend_below(figure: Figure, axis: Any, columns: int = 4) -> None:
    """One legend for all panels."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


def _band(axis: Any, run: Finished, split: str, layer: str, metric: str, colour: str) -> None:
    """Shades the 95 % interval of a metric over epochs, where rows have one; a grey point where it is near its floor."""
    (epochs, low), (others, high) = (series(run, split, layer, f"{metric}_{end}") for end in ("low", "high"))
    if epochs and epochs == others:
        axis.fill_between(epochs, low, high, color=colour, alpha=0.18, lw=0)
    over = dict(zip(*series(run, split, layer, f"{metric}_over_floor"), strict=True))
    near = [(x, y) for x, y in zip(*series(run, split, layer, metric), strict=True) if over.get(x, 0) > NEAR_FLOOR]
    axis.plot([x for x, _ in near], [y for _, y in near], "o", ms=4, color=NEAR, zorder=3)


def _with_error_bars(axis: Any, at: Sequence[int], entries: Sequence[dict[str, Any]], colour: str, style: str, *,
                     label: str | None = None) -> None:
    """NC1 over layers with 95 % intervals; what lies near its floor is grey."""
    values = [e["nc1"] if e["nc1"] is not None else np.nan for e in entries]
    axis.plot(at, values, style, color=colour, lw=0.9, label=label)
    for x, value, entry in zip(at, values, entries, strict=True):
        low, high = entry.get("interval", {}).get("nc1") or (None, None)
        bars = None if low is None else [[value - low], [high - value]]
        grey = (entry.get("over_floor", {}).get("nc1") or 0) > NEAR_FLOOR
        axis.errorbar(x, value, bars, fmt="o", ms=3, color=NEAR if grey else colour, capsize=2, lw=0.9)


def over_epochs(runs: Sequence[Finished]) -> Drawn:
    """NC1, NC2, NC3, NC4, CDNV and accuracy over epochs; train solid, test dashed; one colour a run.

    95 % bands, and a grey point where a value is near its floor.
    """
    panels = ("nc1", "nc2", "nc3", "nc4", "cdnv", "accuracy")
    with mpl.rc_context(STYLE):
        figure, axes = grid(len(panels), 3)
        for axis, metric in zip(axes, panels, strict=True):
            for run, colour in zip(runs, itertools.cycle(COLOURS), strict=False):
                where = {"nc3": "readout", "nc4": "readout"}.get(metric, "penultimate")
                layer = "output" if metric == "accuracy" else run.results[where]
                for split, style in (("train", "-"), ("test", "--")):
                    _band(axis, run, split, layer, metric, colour)
                    axis.plot(*series(run, split, layer, metric), style, color=colour, label=f"{run.name}, {split}")
            axis.set(title=NAMES[metric], xlabel="epoch")
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
            if metric in ("nc1", "cdnv"):
                log_axis(axis)
        legend_below(figure, axes[0])
        return Drawn("epochs", figure)


def layers_over_epochs(runs: Sequence[Finished]) -> Drawn:
    """NC1 on the training set at every layer over epochs, one panel a run, from first layer (dark) to last (light)."""
    with mpl.rc_context(STYLE):
        figure, axes = grid(len(runs), 2, 3.0)
        # One colour a layer on every panel.
        longest = list(dict.fromkeys(layer for run in runs for layer in run.results["layers"]))
        shared = [s for run in runs for layer in run.results["layers"] for s in series(run, "train", layer, "nc1")[1]]
        for axis, run in zip(axes, runs, strict=True):
            for layer in run.results["layers"]:
                colour = mpl.colormaps["viridis"](0.9 * longest.index(layer) / max(1, len(longest) - 1))
                axis.plot(*series(run, "train", layer, "nc1"), color=colour, label=layer)
            axis.set(title=run.name, xlabel="epoch", ylabel="NC1, train")
            log_axis(axis)
            if shared:
                axis.set_ylim(min(shared) / 1.3, max(shared) * 1.3)
        legend_below(figure, max(axes, key=lambda a: len(a.lines)), 6)
        return Drawn("layers", figure)


def by_layer(runs: Sequence[Finished], name: str) -> Drawn:
    """NC1 over the layers (train solid, test dashed, 95 % intervals) and, where probes were fitted, their test accuracy."""
    probes = all("probe" in e for run in runs for e in run.results["layers"].values())
    with mpl.rc_context(STYLE):
        figure, axes = grid(2 if probes else 1, 2, 3.4)
        longest = list(dict.fromkeys(layer for run in runs for layer in run.results["layers"]))
        for run, colour in zip(runs, itertools.cycle(COLOURS), strict=False):
            layers = run.results["layers"]
            at = [longest.index(layer) for layer in layers]
            for split, style, label in (("train", "-", run.name), ("test", "--", None)):
                _with_error_bars(axes[0], at, [e[split] for e in layers.values()], colour, style, label=label)
            if probes:
                axes[1].plot(at, [100 * e["probe"]["test"] for e in layers.values()], "o-", color=colour, ms=3)
        axes[0].set(title="NC1 by layer (test dashed)")
        log_axis(axes[0])
        if probes:
            axes[1].set(title="linear probe, test accuracy in %")
        for axis in axes:
            _names_below(axis, longest)
        legend_below(figure, axes[0])
        return Drawn(f"bylayer-{name}", figure)


def accuracy_over_share(runs: Sequence[Finished], intervals: Sequence[tuple[float, float]], name: str) -> Drawn:
    """Test accuracy with its 95 % interval over the share of parameters tuned."""
    markers = "osD^vP*X"
    with mpl.rc_context(STYLE):
        figure, (axis,) = grid(1, 1, 3.2)
        figure.set_size_inches(5.2, 3.4)
        for i, (run, (low, high)) in enumerate(zip(runs, intervals, strict=True)):
            share, value = 100 * run.results["share"], 100 * run.results["accuracy"]["test"]
            # Methods that tune the same blocks would hide one another: a few per cent apart on the log axis.
            same = sum(r.results["tuned"] == run.results["tuned"] for r in runs[:i])
            axis.errorbar(share * 1.08**same, value, [[value - 100 * low], [100 * high - value]],
                          fmt=markers[i % len(markers)], color=COLOURS[i % len(COLOURS)], capsize=3, label=run.name)
        axis.set(xscale="log", xlabel="parameters tuned, %", ylabel="test accuracy, %")
        axis.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axis.legend(fontsize=8, loc="best")
        return Drawn(f"share-{name}", figure)


def confusion(run: Finished) -> Drawn:
    """Nearest-class-mean confusion on test (row shares), and cosines between the centred class means."""
    means, names = run.results["class_means"], run.results["class_names"]
    counts = np.asarray(means["confusion"], float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = grid(2, 2, 3.6)
        figure.set_size_inches(7.6, 3.6)
        left = axes[0].imshow(shares, cmap="Blues", vmin=0, vmax=1)
        right = axes[1].imshow(np.asarray(means["cosines"], float), cmap="RdBu_r", vmin=-1, vmax=1)
        axes[0].set(title="nearest class mean, test", ylabel="true class")
        axes[1].set(title="cosines of centred class means, train")
        if len(names) <= 20:
            for axis in axes:
                _names_below(axis, names)
                axis.set_yticks(range(len(names)), names, fontsize=7)
            for (i, j), n in np.ndenumerate(counts.astype(int)):
                if n:
                    axes[0].text(j, i, str(n), ha="center", va="center", fontsize=6,
                                 color="white" if shares[i, j] > 0.5 else "black")
        figure.colorbar(left, ax=axes[0], shrink=0.75)
        figure.colorbar(right, ax=axes[1], shrink=0.75)
        return Drawn("confusion-" + re.sub(r"\W", "-", run.name), figure)


def over_shots(run: Finished, name: str) -> Drawn:
    """Test accuracy over training images a class, a line a method, with intervals over seeds."""
    with mpl.rc_context(STYLE):
        figure, (axis,) = grid(1, 1)
        figure.set_size_inches(6.2, 4.2)
        counts = list(run.results["table"])
        for i, method in enumerate(run.results["methods"]):
            entries = [run.results["table"][count][method]["test"] for count in counts]
            at = np.arange(len(counts)) + 0.04 * (i - len(run.results["methods"]) / 2)  # side by side, not hidden
            mean, low, high = (100 * np.asarray(x) for x in zip(*entries, strict=True))
            axis.errorbar(at, mean, [mean - low, high - mean], fmt="o" + ("-", "--", ":")[i // len(COLOURS)], ms=3, lw=1,
                          capsize=2, color=COLOURS[i % len(COLOURS)], label=plain(method))
        axis.set_xticks(range(len(counts)), counts)
        axis.set(xlabel="training images a class", ylabel="test accuracy, %")
        legend_below(figure, axis)
        return Drawn(name, figure)


def by_block(run: Finished, name: str) -> Drawn:
    """NC1 over its floor, probe accuracy on validation, and accuracy after tuning, block by block."""
    found, tuned = run.results["scores"][0], run.results.get("accuracy", {})
    names = run.results["blocks"]
    with mpl.rc_context(STYLE):
        figure, axes = grid(2, 2, 3.2)
        figure.set_size_inches(7.6, 3.2)
        values = [found[b]["nc1_over_floor"] for b in names]
        axes[0].plot(range(len(names)), [np.nan if v is None else v for v in values], "o-", ms=3, color=COLOURS[0])
        axes[0].set(title="NC1 / floor, train")
        axes[1].plot(range(len(names)), [100 * found[b]["probe_accuracy"] for b in names], "o--", ms=3, color=COLOURS[0],
                     label="probe, validation")
        if tuned:
            at = [names.index(b) for b in tuned]
            mean, low, high = (100 * np.asarray(x) for x in zip(*tuned.values(), strict=True))
            axes[1].errorbar(at, mean, [mean - low, high - mean], fmt="s-", ms=3, capsize=2, color=COLOURS[1],
                             label="block tuned, test")
        axes[1].set(title="accuracy, %")
        for axis in axes:
            _names_below(axis, names)
        legend_below(figure, axes[1])
        return Drawn(f"blocks-{name}", figure)
