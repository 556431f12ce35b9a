"""A report is data, and prints as a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ncjax.core.types import Array
from ncjax.nc import metrics, show, spectra, uncertainty
from ncjax.nc.geometry import PAIRS_UP_TO
from ncjax.nc.metric import meaning
from ncjax.nc.null import FLOORED, Draws, standing

BEYOND = (
    f"beyond {PAIRS_UP_TO} classes floors, the interval of CDNV, and what has an entry a pair are left out: they would "
    "take K x K numbers at once"
)

# What a report holds, in the order in which it is shown. A metric is one function; its name and meaning are the function's.
SCALARS: dict[str, Callable[..., Array]] = {
    f.__name__: f
    for f in (
        metrics.nc1,
        metrics.cdnv,
        metrics.trace_ratio,
        metrics.directional_cdnv,
        metrics.nc1_about,
        metrics.cdnv_about,
        metrics.nc2,
        metrics.equinorm,
        metrics.equiangularity,
        metrics.maximal_angle,
        metrics.discrimination,
        metrics.discrimination_centred,
        metrics.nc2_w,
        metrics.nc2_w_centred,
        metrics.nc3,
        metrics.nc3_papyan,
        metrics.angle,
        metrics.nc4,
        metrics.ncc_accuracy,
        metrics.accuracy,
        metrics.nc5,
        spectra.vci,
        spectra.rankme,
        spectra.effective_rank,
        spectra.effective_rank_centred,
        spectra.stable_rank,
        spectra.stable_rank_centred,
        spectra.numerical_rank,
        spectra.numerical_rank_share,
    )
}
ARRAYS: dict[str, Callable[..., Array]] = {
    f.__name__: f for f in (metrics.cdnv_pairs, metrics.nc1_classes, metrics.nc1_pairs)
}  # and "angles"
TRUSTED = ("nc1", "cdnv", "trace_ratio", "directional_cdnv")  # metrics with an interval; those of `FLOORED` have a floor


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Report:
    """Collapse of one set of features. Metrics are attributes, NaN where undefined or where what they need was not given.

    `nc1`, `cdnv`, `nc4`, ... are the functions of `ncjax.nc.metrics` and `ncjax.nc.spectra`; `cdnv_pairs` [K, K],
    `nc1_classes` [K], `nc1_pairs` [K, K] and `angles` [R] are arrays, None where they are not at hand.
    """

    values: dict[str, float]  # every metric asked for
    meaning: dict[str, str]  # what each is, in a line
    arrays: dict[str, np.ndarray]
    rank: int  # rank of Sigma_B that nc1 used
    cut: float  # singular value of the centred means below which a direction counts as rounding
    floor: dict[str, float]  # nc1, cdnv, trace_ratio, directional_cdnv of these features where labels carry no signal
    over_floor: dict[str, float]  # the value divided by that
    p: dict[str, float]  # probability of as small a value where labels carry no signal
    interval: dict[str, tuple[float, float]]  # 95 % over draws of as many examples; (NaN, NaN) where it cannot be had
    flags: tuple[str, ...]
    counts: np.ndarray  # [K] examples of each class
    num_classes: int  # usable classes, with two examples or more
    dim: int
    weighting: str = "class"
    notes: tuple[str, ...] = ()  # what was done to the features before they were measured

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            if name in self.values:
                return self.values[name]
            if name in self.arrays or name in ARRAYS or name == "angles":
                return self.arrays.get(name)
        raise AttributeError(f"a report has no {name!r}")

    @property
    def left_out(self) -> int:
        """Classes with fewer than two examples."""
        return len(self.counts) - self.num_classes

    def scalars(self) -> dict[str, float]:
        """Every defined metric by name; `nc1_floor`, `nc1_over_floor`, `nc1_p`, and the interval `nc1_low`, `nc1_high`.

        This is what rows, JSON and pages hold.
        """
        out = dict(self.values)
        for name in FLOORED:
            out[f"{name}_floor"], out[f"{name}_over_floor"] = self.floor[name], self.over_floor[name]
            out[f"{name}_p"] = self.p[name]
        for name in TRUSTED:
            out[f"{name}_low"], out[f"{name}_high"] = self.interval[name]
        return {name: float(value) for name, value in out.items() if math.isfinite(value)}

    def to_dict(self, *, arrays: bool = False) -> dict[str, Any]:
        """JSON-ready: `scalars`, with None for what is undefined, and what the numbers rest on.

        Args:
          arrays: include what has an entry for each class or pair, as lists with None for NaN.
        """
        used, defined = self.counts[self.counts >= 2], self.scalars()
        names = [*self.values, *(f"{name}_{end}" for name in FLOORED for end in ("floor", "over_floor", "p"))]
        names += [f"{name}_{end}" for name in TRUSTED for end in ("low", "high")]
        out: dict[str, Any] = {name: defined.get(name) for name in names}
        out |= {
            "rank": self.rank,
            "cut": _plain(self.cut),
            "flags": list(self.flags),
            "num_classes": self.num_classes,
            "left_out": self.left_out,
            "n_min": int(min(used, default=0)),
            "n_max": int(max(used, default=0)),
            "dim": self.dim,
            "weighting": self.weighting,
            "notes": list(self.notes),
        }
        if arrays:
            out |= {name: _plain(x.tolist()) for name, x in {"counts": self.counts, **self.arrays}.items()}
        return out

    def __str__(self) -> str:
        used = self.counts[self.counts >= 2]
        sizes = f"{min(used, default=0):g}" + (f" to {max(used):g}" if len(used) and min(used) < max(used) else "")
        lines = [
            f"{sum(self.counts):,.0f} examples, {self.num_classes} classes of {sizes}, {self.dim} features; rank "
            f"{self.rank} (cut {self.cut:.2g})" + (f"; {self.left_out} classes left out" if self.left_out else "")
        ]
        lines.append(f"{'metric':<22}{'value':>10}  {'95 % interval':<21} {'/ floor':>8} {'p':>8}  meaning")
        for name, value in self.values.items():
            if math.isnan(value):
                continue
            low, high = self.interval.get(name, (math.nan, math.nan))
            between = f"{low:.4g} to {high:.4g}" if math.isfinite(low) else ""
            share = self.over_floor.get(name, math.nan)
            shown, chance = (f"{x:.2g}" if math.isfinite(x) else "" for x in (share, self.p.get(name, math.nan)))
            lines.append(f"{name:<22}{value:>10.4g}  {between:<21} {shown:>8} {chance:>8}  {self.meaning[name]}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, "flags: " + (", ".join(self.flags) or "none")])

    __repr__ = __str__

    def to_frame(self) -> Any:
        """A `pandas.DataFrame`: a row a metric, with value, interval, floor, p and meaning.

        Raises:
          UserError: pandas is not installed.
        """
        return show.frame(self)

    def plot(self) -> Any:
        """A `matplotlib.figure.Figure`: what is measured beside its floor, and NC1 class by class."""
        return show.figure(self)

    def _repr_html_(self) -> str:
        return show.as_html(self)


def _plain(x: Any) -> Any:
    """Lists and numbers with None for what is not finite."""
    if isinstance(x, list):
        return [_plain(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def assemble(
    found: dict[str, Any],
    functions: dict[str, Callable[..., Array]],
    draws: Draws,
    counts: np.ndarray,
    dim: int,
    weighting: str,
) -> Report:
    """The report of what was found: metrics and arrays by name, `error.NAME`, rank, cut, resolution; and draws."""
    value = {name: float(found.get(name, np.nan)) for name in functions}
    standings = {name: standing(value[name], draws.get(name, np.array([]))) for name in FLOORED}
    error = {name: float(found[f"error.{name}"]) for name in TRUSTED}
    usable, rank = int(np.sum(counts >= 2)), int(found["rank"])
    flags = uncertainty.flags(
        standings=list(standings.values()),
        rank=rank,
        full_rank=min(usable - 1, dim),
        dim=dim,
        counts=counts.tolist(),
        resolution=float(found["resolution"]),
        dead=rank == 0 and not np.any(found["spread"]),
    )
    return Report(
        values=value,
        meaning={name: meaning(f) for name, f in functions.items()},
        arrays={name: found[name] for name in (*ARRAYS, "angles") if name in found},
        rank=rank,
        cut=float(found["cut"]),
        floor={name: s.floor for name, s in standings.items()},
        over_floor={name: s.over for name, s in standings.items()},
        p={name: s.p for name, s in standings.items()},
        interval={name: uncertainty.interval(value[name], error[name]) for name in TRUSTED},
        flags=flags,
        counts=counts,
        num_classes=usable,
        dim=dim,
        weighting=weighting,
        notes=(BEYOND,) if len(counts) > PAIRS_UP_TO else (),
    )
