"""A report is data, and prints as a table."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ncjax.nc import uncertainty

TRUSTED = ("nc1", "cdnv", "trace_ratio")  # metrics with a floor and an interval
MEANING = {
    "nc1": "within-class variability, (1/K) tr(S_W S_B^+)",
    "cdnv": "class-distance normalised variance",
    "trace_ratio": "tr S_W / tr S_B",
    "nc1_about": "NC1 about the other set's class means",
    "cdnv_about": "CDNV about the other set's class means",
    "nc2": "class means to a simplex ETF",
    "equinorm": "variation of the norms of centred means",
    "equiangularity": "mean |cos + 1/(K-1)| of centred means",
    "class_separation": "1 - largest cosine of centred means",
    "nc2_w": "classifier to a simplex ETF",
    "nc2_w_centred": "the same, rows centred",
    "nc3": "classifier against means, to a simplex ETF",
    "nc3_papyan": "classifier against means, distance",
    "angle": "largest angle between their spans (rad)",
    "nc4": "classifier agrees with nearest class mean",
    "ncc_accuracy": "accuracy of the nearest class mean",
    "accuracy": "accuracy of the classifier",
    "nc5": "mean |cos| of means and outside mean",
    "vci": "variability collapse index",
    "rankme": "RankMe",
    "effective_rank": "effective rank",
    "stable_rank": "stable rank",
    "numerical_rank": "numerical rank, mean over classes",
    "numerical_rank_share": "directions that hold 95 % of the spectrum",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Report:
    """Collapse of one set of features. NaN (or None) where a metric is undefined or what it needs was not given."""

    nc1: float  # (1/K) tr(Sigma_W Sigma_B^+)
    cdnv: float
    trace_ratio: float
    nc1_about: float  # about other class means: of test features, those of training
    cdnv_about: float
    nc2: float  # of the centred class means
    equinorm: float
    equiangularity: float
    class_separation: float
    nc2_w: float  # of the classifier as it is
    nc2_w_centred: float
    nc3: float
    nc3_papyan: float
    angle: float  # largest principal angle between the spans of class means and classifier, radians
    nc4: float  # share of examples, those of classes left out of the rest too; as are the accuracies
    ncc_accuracy: float  # accuracy of the nearest class mean
    accuracy: float
    nc5: float
    vci: float
    rankme: float
    effective_rank: float
    stable_rank: float
    numerical_rank: float
    numerical_rank_share: float
    rank: int  # rank of Sigma_B that nc1 used
    cut: float  # singular value of the centred means below which a direction counts as rounding
    floor: dict[str, float]  # nc1, cdnv, trace_ratio of features that do not know their labels
    over_floor: dict[str, float]  # the value divided by that
    interval: dict[str, tuple[float, float]]  # 95 % over draws of as many examples; (NaN, NaN) where it cannot be had
    flags: tuple[str, ...]
    counts: np.ndarray  # [K] examples of each class
    num_classes: int  # usable classes, with two examples or more
    dim: int
    cdnv_pairs: np.ndarray  # [K, K], NaN on the diagonal and for classes left out
    nc1_classes: np.ndarray | None = None  # [K], needs a second look
    nc1_pairs: np.ndarray | None = None  # [K, K] NC1 of each two-class problem, needs a second look
    angles: np.ndarray | None = None  # [R] principal angles between the spans of class means and classifier, radians
    weighting: str = "class"

    @property
    def left_out(self) -> int:
        """Classes with fewer than two examples."""
        return len(self.counts) - self.num_classes

    def scalars(self) -> dict[str, float]:
        """Every defined number by name, floors and interval ends as `nc1_over_floor`, `nc1_low`, `nc1_high`."""
        out = {name: getattr(self, name) for name in MEANING}
        for name in TRUSTED:
            out[f"{name}_over_floor"] = self.over_floor[name]
            out[f"{name}_low"], out[f"{name}_high"] = self.interval[name]
        return {name: float(value) for name, value in out.items() if math.isfinite(value)}

    def to_dict(self, *, arrays: bool = False) -> dict[str, Any]:
        """JSON-ready: NaN becomes None, arrays become lists.

        Args:
          arrays: include what has one entry a class or a pair.
        """
        def plain(x: Any) -> Any:
            if isinstance(x, dict):
                return {key: plain(value) for key, value in x.items()}
            if isinstance(x, tuple | list):
                return [plain(value) for value in x]
            if isinstance(x, np.ndarray):
                return plain(x.tolist())
            return None if isinstance(x, float) and not math.isfinite(x) else x

        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        used = self.counts[self.counts >= 2]
        out |= {"left_out": self.left_out, "n_min": int(min(used, default=0)), "n_max": int(max(used, default=0)),
                "nc1_over_floor": self.over_floor["nc1"]}
        return {key: plain(x) for key, x in out.items() if arrays or not isinstance(x, np.ndarray)}

    def __str__(self) -> str:
        used = self.counts[self.counts >= 2]
        sizes = f"{min(used, default=0):g}" + (f" to {max(used):g}" if len(used) and min(used) < max(used) else "")
        lines = [f"{sum(self.counts):,.0f} examples, {self.num_classes} classes of {sizes}, {self.dim} features; rank "
                 f"{self.rank} (cut {self.cut:.2g})" + (f"; {self.left_out} classes left out" if self.left_out else "")]
        lines.append(f"{'metric':<21}{'value':>10}  {'95 % interval':<21} {'/ floor':>8}  meaning")
        for name, meaning in MEANING.items():
            value = getattr(self, name)
            if math.isnan(value):
                continue
            low, high = self.interval.get(name, (math.nan, math.nan))
            between = f"{low:.4g} to {high:.4g}" if math.isfinite(low) else ""
            share = self.over_floor.get(name, math.nan)
            shown = f"{share:.3g}" if math.isfinite(share) else ""
            lines.append(f"{name:<21}{value:>10.4g}  {between:<21} {shown:>8}  {meaning}")
        return "\n".join([*lines, "flags: " + (", ".join(self.flags) or "none")])

    __repr__ = __str__


def assemble(found: dict[str, Any], counts: np.ndarray, dim: int, weighting: str) -> Report:
    """The report of what was found: fields by name, `floor.NAME`, `error.NAME`, rank, cut and resolution."""
    floor = {name: float(found.pop(f"floor.{name}")) for name in TRUSTED}
    error = {name: float(found.pop(f"error.{name}")) for name in TRUSTED}
    value = {name: float(found.get(name, np.nan)) for name in TRUSTED}
    over = {name: value[name] / floor[name] for name in TRUSTED}
    usable, rank = int(np.sum(counts >= 2)), int(found.pop("rank"))
    flags = uncertainty.flags(over_floor=list(over.values()), rank=rank, full_rank=min(usable - 1, dim),
                              counts=counts.tolist(), resolution=float(found.pop("resolution")))
    arrays = {name: found.pop(name) for name in ("cdnv_pairs", "nc1_classes", "nc1_pairs", "angles") if name in found}
    names = [f for f in Report.__dataclass_fields__ if Report.__dataclass_fields__[f].type == "float"]
    numbers = {name: float(found.get(name, np.nan)) for name in names}
    return Report(**numbers, **arrays, rank=rank, floor=floor, over_floor=over, flags=flags, counts=counts,
                  interval={name: uncertainty.interval(value[name], error[name]) for name in TRUSTED}, num_classes=usable,
                  dim=dim, weighting=weighting)
