"""Measure a trained model on a data set without touching it: the collapse of every layer and, on request, a probe there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ncjax.data import Data
from ncjax.nc.uncertainty import near_floor
from ncjax.networks.load import Init
from ncjax.report import by_class, figures
from ncjax.report.collect import Finished
from ncjax.report.sections import TRUST, Section, file_stem, nc1_words, own_metrics, row
from ncjax.report.tables import (
    CHANCE,
    Row,
    Table,
    number,
    of_rows,
    over_floor,
    percent,
    starred,
    text,
    trusted,
    whole,
    wilson,
)
from ncjax.runs.run import Run
from ncjax.transfer.layerwise import Measurement, describe


def run(
    *,
    run: Run,
    init: Init,
    data: Data = Data(),
    measurement: Measurement = Measurement(),
) -> dict[str, Any]:
    """NC1, NC2, CDNV and the rest at every block, on train and test.

    Args:
      run: where it happens.
      init: the network.
      data: the data set; images take the size and channels that the model was trained on unless told otherwise.
      measurement: how.
    """
    return describe(run, init, data, measurement)


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every data set that was measured."""
    sections = []
    for data in dict.fromkeys(run.config["data"] for run in runs):
        here, stem = [run for run in runs if run.config["data"] == data], file_stem("layers", data)
        drawn = [("Collapse beside what a linear probe reads, layer by layer.", _by_layer(here, stem))]
        if "cosines" in here[0].results:
            caption = f"{here[0].name}: cosines of the centred class means, train, at the penultimate layer."
            drawn.append((caption, _cosines(here[0])))
        drawn_of_classes, tables_of_classes = by_class.parts(here[0], stem)
        tables = [_table(here, data, stem), *tables_of_classes]
        title = f"Layer by layer on {data}"
        sections.append(Section(title, "", drawn + drawn_of_classes, tables, tuple(map(_verdict, here))))
    return sections


def _table(runs: Sequence[Finished], data: str, stem: str) -> Table:
    """A row for every run and layer."""
    sizes = ", ".join(f"{k} {v['size']}" for k, v in runs[0].results["data"].items())
    caption = (
        f"Every layer on {data} ({sizes}). The probe is multinomial logistic regression, its "
        "regularisation chosen on validation (a star: it is the strongest or weakest that may be tried). "
        '"About train": test features about the training set\'s class means. ' + TRUST + " " + CHANCE
    )
    extra = own_metrics(runs)
    return of_rows(stem, caption, [_row(run, layer, extra) for run in runs for layer in run.results["layers"]])


def _row(run: Finished, layer: str, extra: Sequence[str]) -> Row:
    entry, test = run.results["layers"][layer], run.results["data"]["test"]
    probe = entry.get("probe", {})

    def source(split: str, metric: str) -> str:
        return row(run, 0, split, layer, metric)

    reached = percent(probe.get("test"), source("test", "probe_accuracy"), test["size"], test.get("largest"))
    return [
        ("run, layer", text(f"{run.name}, {layer}")),
        ("D", whole(entry["dim"])),
        ("NC1 train [95 %]", trusted(entry["train"], "nc1", source("train", "nc1"))),
        ("NC1 / floor", over_floor(entry["train"], "nc1", source("train", "nc1_over_floor"))),
        ("NC1 test [95 %]", trusted(entry["test"], "nc1", source("test", "nc1"))),
        ("NC1 test about train", number(entry["test"].get("nc1_about"), source("test", "nc1_about"))),
        ("CDNV train [95 %]", trusted(entry["train"], "cdnv", source("train", "cdnv"))),
        *((f"{m} train", number(entry["train"].get(m), source("train", m))) for m in extra),
        ("probe train %", percent(probe.get("train"), source("train", "probe_accuracy"))),
        ("probe test % [95 %]", starred(reached, probe.get("l2_at_end"))),
        ("flags, train", text(", ".join(entry["train"].get("flags", [])) or "–")),
    ]


def _with_error_bars(
    axis: Any, at: Sequence[int], entries: Sequence[dict[str, Any]], colour: str, style: str, *, label: str | None = None
) -> None:
    """NC1 over layers with 95 % intervals; what lies near its floor is grey."""
    values = [e["nc1"] if e["nc1"] is not None else np.nan for e in entries]
    axis.plot(at, values, style, color=colour, lw=0.9, label=label)
    for x, value, entry in zip(at, values, entries, strict=True):
        low, high = entry.get("nc1_low"), entry.get("nc1_high")
        bars = None if low is None or high is None else [[value - low], [high - value]]
        grey = near_floor(entry.get("nc1_over_floor"), entry.get("nc1_p"))
        axis.errorbar(x, value, bars, fmt="o", ms=3, color=figures.NEAR if grey else colour, capsize=2, lw=0.9)


def _by_layer(runs: Sequence[Finished], name: str) -> figures.Drawn:
    """NC1 over the layers (train solid, test dashed, 95 % intervals) and, where probes were fitted, their test accuracy."""
    probes = all("probe" in e for run in runs for e in run.results["layers"].values())
    with figures.panels(2 if probes else 1, 2, 3.4) as (figure, axes):
        longest = list(dict.fromkeys(layer for run in runs for layer in run.results["layers"]))
        for run, colour in zip(runs, itertools.cycle(figures.COLOURS), strict=False):
            layers = run.results["layers"]
            at = [longest.index(layer) for layer in layers]
            for split, style, label in (("train", "-", run.name), ("test", "--", None)):
                _with_error_bars(axes[0], at, [e[split] for e in layers.values()], colour, style, label=label)
            if probes:
                axes[1].plot(at, [100 * e["probe"]["test"] for e in layers.values()], "o-", color=colour, ms=3)
        axes[0].set(title="NC1 by layer (test dashed)")
        figures.log_axis(axes[0])
        if probes:
            axes[1].set(title="linear probe, test accuracy in %")
        for axis in axes:
            figures.names_below(axis, longest)
        figures.legend_below(figure, axes[0])
        return figures.Drawn(f"bylayer-{name}", figure)


def _cosines(run: Finished) -> figures.Drawn:
    """Cosines between the centred class means."""
    names = run.results["class_names"]
    with figures.panel(4.4, 3.6, lines=False) as (figure, axis):
        image = axis.imshow(np.asarray(run.results["cosines"], float), cmap="RdBu_r", vmin=-1, vmax=1)
        if len(names) <= 20:
            figures.names_below(axis, names)
            axis.set_yticks(range(len(names)), names, fontsize=7)
        figure.colorbar(image, ax=axis, shrink=0.75)
        return figures.Drawn("cosines-" + re.sub(r"\W", "-", run.name), figure)


def _verdict(run: Finished) -> str:
    """Which layer has collapsed furthest, by NC1 over its floor, and where a probe reads best."""
    layers = run.results["layers"]
    known = {name: e["test"]["nc1_over_floor"] for name, e in layers.items() if e["test"].get("nc1_over_floor") is not None}
    said = "no layer's NC1 has a floor"
    if known:
        most = min(known, key=lambda name: known[name])
        said = f"most collapsed at {most}, NC1 on test {nc1_words(layers[most]['test'])}"
    said = f"{run.name}, {run.config['data']}: {said}"
    probed = {name: e["probe"]["test"] for name, e in layers.items() if "probe" in e}
    if not probed:
        return said + "."
    best, last = max(probed, key=lambda name: probed[name]), run.results["penultimate"]
    count = run.results["data"]["test"]["size"]
    said += f"; a linear probe reads {percent(probed[last], '', count).text} % at {last}"
    if best == last:
        return said + ", no less than anywhere else."
    apart = wilson(probed[best], count)[0] > wilson(probed[last], count)[1]
    return f"{said}, most at {best}: {percent(probed[best], '', count).text} %{'' if apart else ', not told apart'}."
