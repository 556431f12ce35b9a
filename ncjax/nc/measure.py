"""Arrays in, a report out."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.nc import metrics
from ncjax.nc.stats import ClassStats, empty, observe, usable
from ncjax.types import Array, UserError

Classifier = tuple[Array, Array]  # weight [K, D], bias [K]


class Report(NamedTuple):
    """Collapse of one set of features. NaN where a metric is undefined or needs a classifier that was not given."""

    nc1: float  # (1/K) tr(Sigma_W Sigma_B^+)
    nc1_over_floor: float  # nc1 divided by its value for labels that carry no signal
    cdnv: float
    trace_ratio: float
    class_separation: float
    nc2: float  # of the centred class means
    equinorm: float
    equiangularity: float
    nc2_w: float  # of the classifier as it is
    nc2_w_centred: float
    nc3: float
    nc3_papyan: float
    nc4: float
    ncc_accuracy: float  # accuracy of the nearest class mean
    rank: int  # rank of Sigma_B that nc1 used
    num_classes: int  # usable classes
    left_out: int  # classes with fewer than two examples
    n_min: int  # smallest and largest usable class
    n_max: int
    dim: int

    def to_dict(self) -> dict[str, float | int | None]:
        """JSON-ready: NaN becomes None."""
        return {key: None if isinstance(x, float) and not np.isfinite(x) else x for key, x in self._asdict().items()}


@jax.jit
def _from_stats(stats: ClassStats) -> dict[str, Array]:
    one_argument = (metrics.nc1, metrics.cdnv, metrics.trace_ratio, metrics.class_separation, metrics.nc2,
                    metrics.equinorm, metrics.equiangularity)
    value = {f.__name__: f(stats) for f in one_argument}
    return {**value, "nc1_over_floor": value["nc1"] / metrics.nc1_floor(stats), "rank": metrics.nc1_rank(stats)}


@jax.jit
def _from_classifier(stats: ClassStats, weight: Array) -> dict[str, Array]:
    return {
        "nc2_w": metrics.nc2_classifier(weight),
        "nc2_w_centred": metrics.nc2_classifier(weight, centred=True),
        "nc3": metrics.nc3(stats, weight),
        "nc3_papyan": metrics.nc3_papyan(stats, weight),
    }


@jax.jit
def _second_look(centres: ClassStats, features: Array, labels: Array) -> Array:
    return jnp.mean(metrics.nearest_class_mean(centres, features) == labels)


def report(
    stats: ClassStats,
    *,
    classifier: Classifier | None = None,
    features: Array | None = None,
    labels: Array | None = None,
    centres: ClassStats | None = None,
) -> Report:
    """Every metric that what is given allows; the others are NaN.

    Args:
      stats: of the features to describe.
      classifier: (weight [K, D], bias [K]).
      features, labels: [N, D], [N], the second look that NC4 and the nearest-class-mean accuracy need.
      centres: whose class means NC4 uses; default `stats`. For test features give the training statistics.
    """
    values = {name: float("nan") for name in Report._fields}
    values.update(_from_stats(stats))
    if classifier is not None:
        values.update(_from_classifier(stats, classifier[0]))
    if features is not None:
        centres = stats if centres is None else centres
        values["ncc_accuracy"] = _second_look(centres, features, labels)
        if classifier is not None:
            values["nc4"] = jax.jit(metrics.nc4)(centres, features, *classifier)
    counts = np.asarray(stats.count)[np.asarray(usable(stats))]
    values.update(num_classes=counts.size, left_out=stats.count.shape[0] - counts.size, dim=stats.mean.shape[1],
                  n_min=counts.min(initial=np.inf) if counts.size else 0, n_max=counts.max(initial=0))
    whole = ("rank", "num_classes", "left_out", "n_min", "n_max", "dim")
    return Report(**{key: int(x) if key in whole else float(x) for key, x in values.items()})


def measure(features: Array, labels: Array, *, classifier: Classifier | None = None,
            num_classes: int | None = None) -> Report:
    """Collapse of features [N, D] with integer labels [N].

    Args:
      features: [N, D] NumPy, JAX or DLPack-capable array.
      labels: [N] integers.
      classifier: (weight [K, D], bias [K]) to add NC2 of W, NC3 and NC4.
      num_classes: K, default the largest label + 1.

    Raises:
      UserError: shapes disagree, labels are no integers in [0, K), or a feature is NaN or infinite.
    """
    features, labels = jnp.asarray(features), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise UserError(f"expected features [N, D] and labels [N], got {features.shape} and {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels must be integers, got {labels.dtype}")
    num_classes = int(labels.max()) + 1 if num_classes is None else num_classes
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"labels run from {labels.min()} to {labels.max()}, outside [0, {num_classes})")
    bad = ~np.asarray(jnp.all(jnp.isfinite(features), axis=1))
    if bad.any():
        raise UserError(f"{bad.sum()} examples have NaN or infinite features (classes {np.unique(labels[bad]).tolist()})")
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    stats = jax.jit(observe)(empty(num_classes, features.shape[1], dtype), features, labels)
    return report(stats, classifier=classifier, features=features.astype(dtype), labels=labels)
