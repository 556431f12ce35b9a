"""A report as a table of pandas, as HTML in a notebook, and as a figure."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ncjax.core.errors import UserError

if TYPE_CHECKING:
    from ncjax.nc.report import Report

COLUMNS = ("value", "low", "high", "floor", "over_floor", "p", "meaning")


def rows(report: Report) -> dict[str, tuple[Any, ...]]:
    """{metric: `COLUMNS` of it} of every metric that is defined."""
    nan = math.nan
    return {
        name: (
            value,
            *report.interval.get(name, (nan, nan)),
            *(part.get(name, nan) for part in (report.floor, report.over_floor, report.p)),
            report.meaning[name],
        )
        for name, value in report.values.items()
        if not math.isnan(value)
    }


def frame(report: Report) -> Any:
    """A `pandas.DataFrame`, a row a metric.

    Raises:
      UserError: pandas is not installed.
    """
    try:
        import pandas as pd  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError("to_frame needs pandas: pip install pandas") from None
    return pd.DataFrame.from_dict(rows(report), orient="index", columns=list(COLUMNS)).rename_axis("metric")


def as_html(report: Report) -> str:
    """A table for notebooks."""

    def cell(x: Any) -> str:
        if isinstance(x, str):
            return f'<td style="text-align:left">{html.escape(x)}</td>'
        return f"<td>{'' if math.isnan(x) else format(x, '.4g')}</td>"

    lines = str(report).splitlines()
    said = [lines[0], *(f"note: {note}" for note in report.notes), lines[-1]]
    body = "".join(f"<tr><th>{name}</th>{''.join(map(cell, row))}</tr>" for name, row in rows(report).items())
    columns = "".join(f"<th>{name}</th>" for name in ("", *COLUMNS))
    return (
        f"<p>{'<br>'.join(map(html.escape, said))}</p><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"
    )


def figure(report: Report) -> Any:
    """A `matplotlib.figure.Figure`: NC1, CDNV and trace ratio with 95 % intervals beside their floors; NC1 by class."""
    from matplotlib.figure import Figure

    names = [name for name in ("nc1", "cdnv", "trace_ratio") if not math.isnan(report.values.get(name, math.nan))]
    classes = report.nc1_classes
    made = Figure(figsize=(8.0, 3.0), layout="constrained")
    left, right = made.subplots(1, 2)
    for at, name in enumerate(names):
        value, (low, high), floor = report.values[name], report.interval[name], report.floor.get(name, math.nan)
        bars = [[value - low], [high - value]] if math.isfinite(low) else None
        left.errorbar(at, value, bars, fmt="o", capsize=4, color="#0072B2", label="measured, 95 %" if not at else None)
        if math.isfinite(floor):
            left.plot([at - 0.25, at + 0.25], [floor, floor], color="#D55E00", label="no signal" if not at else None)
    left.set_xticks(range(len(names)), names)
    left.set_yscale("log")
    made.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
    if classes is not None:
        known = np.flatnonzero(np.isfinite(classes))
        right.bar(known, np.asarray(classes)[known], color="#0072B2")
        right.set(title="NC1 by class", xlabel="class")
    else:
        right.set_axis_off()
    return made
