"""Tables that go three ways: into the page, into CSV, into LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.core.files import write_text
from ncjax.evidence import intervals
from ncjax.nc.uncertainty import near_floor


class Cell(NamedTuple):
    """A value, how it is shown, and where it comes from."""

    value: str | float | int | None
    text: str
    source: str = ""  # file and row, shown when the pointer rests on the number
    faint: bool = False  # greyed: too near what labels without signal would give


class Table(NamedTuple):
    """A titled table; the first column names the row."""

    name: str  # file stem
    caption: str
    columns: list[str]
    rows: list[list[Cell]]


Row = list[tuple[str, Cell]]  # (column, cell)


def of_rows(name: str, caption: str, rows: Sequence[Row]) -> Table:
    """A table of rows that say their columns, all the same."""
    columns = [column for column, _ in rows[0]] if rows else []
    assert all([column for column, _ in row] == columns for row in rows), "every row has the same columns"
    return Table(name, caption, columns, [[cell for _, cell in row] for row in rows])


def text(value: str) -> Cell:
    """A cell of words."""
    return Cell(str(value), str(value))


def number(value: float | None, source: str = "", digits: int = 3) -> Cell:
    """A number to some significant digits."""
    if value is None or not math.isfinite(value):
        return Cell(None, "–", source)
    return Cell(value, f"{value:.{digits}g}" if abs(value) < 1e4 else f"{value:.{digits - 1}e}", source)


def trusted(found: dict[str, Any], metric: str, source: str = "") -> Cell:
    """A metric of a layer, from a `Report.to_dict()`, with its 95 % interval; greyed near its floor."""
    cell = number(found.get(metric), source)
    if cell.value is None:
        return cell
    low, high, over, p = (found.get(f"{metric}_{end}") for end in ("low", "high", "over_floor", "p"))
    between = "" if low is None else f" [{number(low).text}, {number(high).text}]"
    return cell._replace(text=cell.text + between, faint=near_floor(over, p))


def over_floor(found: dict[str, Any], metric: str, source: str = "") -> Cell:
    """A metric over its floor, and the probability of as small a value where labels carry no signal."""
    cell, p = number(found.get(f"{metric}_over_floor"), source), found.get(f"{metric}_p")
    if cell.value is None or p is None:
        return cell
    return cell._replace(text=f"{cell.text} ({'p < 0.001' if p < 1e-3 else f'p = {p:.2g}'})")


def with_spread(cell: Cell, spread: float | None) -> Cell:
    """A number, and the standard deviation of what is random in it."""
    return cell if spread is None or cell.value is None else cell._replace(text=f"{cell.text} ± {spread:.2g}")


def whole(value: float | None, source: str = "") -> Cell:
    """A count."""
    return Cell(None, "–", source) if value is None else Cell(int(value), f"{int(value):,}", source)


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share observed on n examples (Wilson, 1927)."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half


CHANCE = "† no better than to say the largest class of every image."


def chance(low: float | None, largest: float | None) -> str:
    """ "†" where the lower end of an accuracy's interval is not above the share of the largest class; "" else."""
    return "†" if low is not None and largest is not None and low <= largest else ""


def chances(accuracy: dict[str, float], data: dict[str, dict[str, Any]]) -> dict[str, str]:
    """{split: "†" or ""} of accuracies, by the sizes and largest classes that `Dataset.describe` gives."""
    return {name: chance(wilson(x, data[name]["size"])[0], data[name]["largest"]) for name, x in accuracy.items()}


def percent(share: float | None, source: str = "", n: int | None = None, largest: float | None = None) -> Cell:
    """A share in per cent, with its Wilson interval if the number of examples is given; of the largest class, marked."""
    if share is None:
        return Cell(None, "–", source)
    interval = mark = ""
    if n:
        low, high = wilson(share, n)
        interval, mark = f" [{100 * low:.1f}, {100 * high:.1f}]", chance(low, largest)
    return Cell(share, f"{100 * share:.2f}{interval}{mark}", source, faint=bool(mark))


def in_percent(x: float) -> str:
    """A share in words, to three digits: "8.27 %", "100 %"."""
    return f"{100 * x:.3g} %" if abs(x) < 9.99 else f"{100 * x:.0f} %"


def starred(cell: Cell, at_end: bool | None) -> Cell:
    """With a star where a choice behind the number is at an end of what may be tried."""
    return cell._replace(text=cell.text + "*") if at_end else cell


def spread(interval: Sequence[float] | None, source: str = "", largest: float | None = None) -> Cell:
    """A mean share over seeds in per cent, with its interval; marked where that reaches down to `largest`."""
    if interval is None:
        return Cell(None, "–", source)
    mark = chance(interval[1], largest)
    return Cell(interval[0], intervals.points(interval) + mark, source, faint=bool(mark))


def to_csv(table: Table) -> str:
    """Full-precision values."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(map(_inert, table.columns))
    writer.writerows([["" if c.value is None else _inert(c.value) for c in row] for row in table.rows])
    return out.getvalue()


def _inert(value: str | float) -> str | float:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@")) else value


TEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\n": " ",
        "–": "--",
        "→": r"$\to$",
        "×": r"$\times$",
    }
)


def _escaped(value: str) -> str:
    return value.translate(TEX)


def to_latex(table: Table) -> str:
    """A booktabs tabular with the numbers as shown."""
    lines = [r"\begin{tabular}{l" + "r" * (len(table.columns) - 1) + "}", r"\toprule"]
    lines.append(" & ".join(_escaped(c) for c in table.columns) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(_escaped(c.text) for c in row) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def save(table: Table, folder: Path) -> None:
    """Writes NAME.csv and NAME.tex."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{table.name}.csv", to_csv(table))
    write_text(folder / f"{table.name}.tex", to_latex(table))
