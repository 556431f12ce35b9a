"""What comes in: arrays of any library, checked, each fault one line."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.nc.stats import ClassStats
from ncjax.types import Array, UserError

Classifier = tuple[Array, Array]  # weight [K, D], bias [K]
MANY = 10_000  # classes that are taken for a mistake if examples are fewer than a tenth of them


def to_jax(x: Any) -> Array:
    """A NumPy, JAX or DLPack-capable (torch, TensorFlow) array without a copy where that is possible."""
    if not isinstance(x, np.ndarray | jax.Array) and hasattr(x, "__dlpack__"):
        x = x.detach() if hasattr(x, "detach") else x
        return jax.dlpack.from_dlpack(x.contiguous() if hasattr(x, "contiguous") else x)
    return jnp.asarray(x)


def check_classifier(classifier: Classifier, num_classes: int, dim: int) -> Classifier:
    """(weight [K, D], bias [K]) as JAX arrays, or the fault."""
    try:
        weight, bias = (to_jax(x) for x in classifier)
    except (TypeError, ValueError):
        raise UserError("classifier must be a pair of number arrays (weight [K, D], bias [K])") from None
    if weight.shape != (num_classes, dim) or bias.shape != (num_classes,):
        raise UserError(f"classifier: expected weight [{num_classes}, {dim}] and bias [{num_classes}], got "
                        f"{list(weight.shape)} and {list(bias.shape)}")
    return tuple(x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (weight, bias))


def check(features: Any, labels: Any, num_classes: int | None) -> tuple[Array, Array, int]:
    """Features [N, D] and labels [N] int32 as JAX arrays and the number of classes, or the fault."""
    for name, x in (("features", features), ("labels", labels)):
        if isinstance(x, np.ndarray) and x.dtype.hasobject:
            raise UserError(f"{name} are an object array; give numbers (are the rows of different lengths?)")
    try:
        features = to_jax(features)
    except (TypeError, ValueError) as e:
        raise UserError(f"features cannot be read as an array: {str(e).splitlines()[0]}") from None
    labels = np.asarray(labels.cpu() if hasattr(labels, "cpu") else labels)
    if features.ndim != 2 or labels.ndim != 1:
        raise UserError(f"expected features [N, D] and labels [N], got {list(features.shape)} and {list(labels.shape)}")
    if len(labels) != len(features):
        raise UserError(f"{len(features)} features but {len(labels)} labels: expected one label a row")
    if not features.size:
        raise UserError(f"features are empty: {list(features.shape)}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels must be integers, got {labels.dtype}")
    if jnp.issubdtype(features.dtype, jnp.complexfloating):
        raise UserError("features are complex; give real numbers")
    wide = features.dtype == jnp.float64 and not jax.config.jax_enable_x64
    if wide or not jnp.issubdtype(features.dtype, jnp.floating):
        features = features.astype(jnp.float32)
    low, high = int(labels.min()), int(labels.max())
    classes = high + 1 if num_classes is None else num_classes
    if low < 0 or high >= classes:
        raise UserError(f"labels run from {low} to {high}, outside [0, {classes})")
    if classes > max(MANY, 10 * len(labels)):
        raise UserError(f"{classes} classes for {len(labels)} examples: renumber the labels 0, 1, 2, ...")
    if np.sum(np.bincount(labels, minlength=classes) >= 2) < 2:
        raise UserError("collapse is between classes: expected two or more with two examples each")
    return features, jnp.asarray(labels.astype(np.int32)), classes


def check_fit(stats: ClassStats, features: Array, labels: np.ndarray) -> None:
    """Raises where features [N, D] with labels [N] cannot be looked at from these statistics."""
    count, dim = stats.anchor.shape
    if features.ndim != 2 or features.shape[1] != dim or labels.shape != features.shape[:1]:
        raise UserError(f"expected features [N, {dim}] and labels [N] as in the statistics, got {list(features.shape)} and "
                        f"{list(labels.shape)}")
    if labels.size and (labels.min() < 0 or labels.max() >= count):
        raise UserError(f"labels run from {labels.min()} to {labels.max()}, outside the statistics' [0, {count})")


def check_outside(outside: Any, dim: int) -> Array:
    """Out-of-distribution features [M, D] or their mean [D] as a JAX array."""
    outside = to_jax(outside)
    if outside.ndim not in (1, 2) or outside.shape[-1] != dim:
        raise UserError(f"outside: expected features [M, {dim}] or their mean [{dim}], got {list(outside.shape)}")
    return outside.astype(jnp.float32)


def check_sound(stats: ClassStats) -> ClassStats:
    """The statistics; raises where they have met NaN or infinite features, and says how many and in which classes."""
    bad = np.asarray(stats.bad)
    if bad.any():
        raise UserError(f"{bad.sum():.0f} examples have NaN or infinite features (classes {np.flatnonzero(bad).tolist()})")
    if not np.isfinite(stats.spread).all():
        raise UserError("the squared features overflow float32: divide them by a constant first")
    return stats
