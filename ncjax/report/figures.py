"""Figures as inline SVG. Every value drawn stands in a run's metrics.jsonl or results.json."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from ncjax.core.resolve import short_name

# Okabe & Ito's palette: distinguishable with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
NEAR = "#aaaaaa"  # points near their no-signal floor
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "ncjax",
    "text.parse_math": False,  # names of runs are words, whatever characters are in them
}
NAMES = {
    "nc1": "NC1",
    "nc2": "NC2 (class means)",
    "nc3": "NC3",
    "nc4": "NC4",
    "cdnv": "CDNV",
    "accuracy": "accuracy",
}


class Drawn(NamedTuple):
    """A figure and the name of its file."""

    name: str
    figure: Figure
    photo: bool = False  # of photographs, whose colours are not turned on a dark page


def svg(drawn: Drawn) -> str:
    """The figure as an <svg> element that scales with the page; its name keeps ids unique there."""
    out, name = io.StringIO(), drawn.name
    with mpl.rc_context(STYLE):
        drawn.figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    found = re.search(r'viewBox="0 0 ([\d.]+)', text)
    width = float(found[1]) if found else 0.0
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        rf'<svg viewBox="\1" role="img" style="max-width:{1.7 * width:.0f}px">',
        text,
        count=1,
    )
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)


def png(drawn: Drawn, folder: Path) -> None:
    """Writes NAME.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        drawn.figure.savefig(folder / f"{drawn.name}.png", dpi=110, bbox_inches="tight")


@contextlib.contextmanager
def panels(
    count: int, columns: int, height: float = 2.3, *, width: float = 3.1, lines: bool = True
) -> Iterator[tuple[Figure, list[Any]]]:
    """`with panels(...) as (figure, axes)`: a figure of `count` panels, to be drawn on in our style.

    Args:
      count, columns: panels, and how many of them side by side.
      height, width: of each, in inches.
      lines: a grid behind them.
    """
    rows = -(-count // columns)
    with mpl.rc_context({**STYLE, "axes.grid": lines}):
        figure = Figure(figsize=(width * min(columns, count), height * rows), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, min(columns, count))).ravel().tolist()
        for unused in axes[count:]:
            unused.set_visible(False)
        yield figure, axes[:count]


@contextlib.contextmanager
def panel(width: float, height: float, *, lines: bool = True) -> Iterator[tuple[Figure, Any]]:
    """`with panel(...) as (figure, axis)`: a figure of one panel, sizes in inches."""
    with panels(1, 1, height, width=width, lines=lines) as (figure, (axis,)):
        yield figure, axis


def log_axis(axis: Any, which: str = "y") -> None:
    """Makes the x or y axis logarithmic, labelled with plain numbers; call it once everything is drawn."""
    getattr(axis, f"set_{which}scale")("log")
    own = getattr(axis, f"{which}axis")
    low, high = getattr(axis, f"get_{which}lim")()
    decades = low > 0 and high > 1e4 * low  # then every one or two of them is marked
    own.set_major_locator(ticker.LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0), numticks=6))
    own.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    own.set_minor_formatter(ticker.NullFormatter())


def names_below(axis: Any, names: Sequence[str]) -> None:
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)


def plain(method: str) -> str:
    """A fine-tuning method's name, without its module or file; with its settings."""
    name, opened, settings = method.partition("(")
    return short_name(name) + opened + settings


def legend_below(figure: Figure, axis: Any, columns: int = 4) -> None:
    """One legend for all panels, in so many columns at most, no wider than the figure or nine inches."""
    handles, labels = axis.get_legend_handles_labels()
    inches = 0.5 + 0.065 * max(map(len, labels), default=0)  # of a column
    fit = max(int(max(figure.get_figwidth(), 9.0) / inches), 1)
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels), fit))
