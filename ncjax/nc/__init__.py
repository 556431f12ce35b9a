"""Neural-collapse metrics on plain arrays: streaming class statistics and the numbers read from them.

>>> from ncjax import nc
>>> report = nc.measure(features, labels, classifier=(weight, bias))
"""

from ncjax.nc.measure import Report, measure, report
from ncjax.nc.metrics import (
    cdnv,
    cdnv_pairs,
    class_separation,
    equiangularity,
    equinorm,
    nc1,
    nc1_floor,
    nc1_rank,
    nc2,
    nc2_classifier,
    nc3,
    nc3_papyan,
    nc4,
    nearest_class_mean,
    trace_ratio,
)
from ncjax.nc.stats import ClassStats, empty, merge, observe, usable

__all__ = [
    "ClassStats", "Report", "cdnv", "cdnv_pairs", "class_separation", "empty", "equiangularity", "equinorm", "measure",
    "merge", "nc1", "nc1_floor", "nc1_rank", "nc2", "nc2_classifier", "nc3", "nc3_papyan", "nc4",
    "nearest_class_mean", "observe", "report", "trace_ratio", "usable",
]
