"""Neural-collapse metrics on plain arrays: streaming class statistics and the numbers read from them.

>>> from ncjax import nc
>>> report = nc.measure(features, labels, classifier=(weight, bias))
"""

from ncjax.nc.certificate import few_shot_certificate
from ncjax.nc.measure import collect, look_at, measure, report
from ncjax.nc.metric import metric
from ncjax.nc.metrics import (
    cdnv,
    cdnv_pairs,
    cosines,
    directional_cdnv,
    discrimination,
    discrimination_centred,
    equiangularity,
    equinorm,
    maximal_angle,
    nc1,
    nc1_classes,
    nc1_cut,
    nc1_pairs,
    nc1_rank,
    nc2,
    nc2_w,
    nc2_w_centred,
    nc3,
    nc3_papyan,
    nc4,
    nc5,
    nearest_class_mean,
    nearest_class_mean_agreement,
    subspace_angles,
    trace_ratio,
)
from ncjax.nc.null import Floors, floors
from ncjax.nc.projected import Frame, Look, Tilt, frame, look, merge, tilt, unseen
from ncjax.nc.report import Report
from ncjax.nc.spectra import Ranks, numerical_rank, ranks
from ncjax.nc.stats import ClassStats, empty, observe, usable
from ncjax.nc.taken import Hooks, flax_features, torch_hooks
from ncjax.nc.uncertainty import errors, resolution
from ncjax.nc.vectors import class_vectors
from ncjax.nc.watch import watch

__all__ = [
    "ClassStats",
    "Floors",
    "Frame",
    "Hooks",
    "Look",
    "Ranks",
    "Report",
    "Tilt",
    "cdnv",
    "cdnv_pairs",
    "class_vectors",
    "collect",
    "cosines",
    "directional_cdnv",
    "discrimination",
    "discrimination_centred",
    "empty",
    "equiangularity",
    "equinorm",
    "errors",
    "few_shot_certificate",
    "flax_features",
    "floors",
    "frame",
    "look",
    "look_at",
    "maximal_angle",
    "measure",
    "merge",
    "metric",
    "nc1",
    "nc1_classes",
    "nc1_cut",
    "nc1_pairs",
    "nc1_rank",
    "nc2",
    "nc2_w",
    "nc2_w_centred",
    "nc3",
    "nc3_papyan",
    "nc4",
    "nc5",
    "nearest_class_mean",
    "nearest_class_mean_agreement",
    "numerical_rank",
    "observe",
    "ranks",
    "report",
    "resolution",
    "subspace_angles",
    "tilt",
    "torch_hooks",
    "trace_ratio",
    "unseen",
    "usable",
    "watch",
]
