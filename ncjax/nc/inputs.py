"""What comes in: arrays of any library, checked, each fault one line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.nc.kinds import check_kind, expect
from ncjax.nc.stats import ClassStats, check_shapes, check_stats

Classifier = tuple[Array, Array]  # weight [K, D], bias [K]
MANY = 10_000  # classes that are taken for a mistake if examples are fewer than a tenth of them


def to_jax(x: Any, name: str) -> Array:
    """A NumPy, JAX or DLPack-capable (torch, TensorFlow) array without a copy where that is possible.

    Raises:
      UserError: it is none, and holds no numbers.
    """
    check_kind(x, name)
    try:
        if not isinstance(x, np.ndarray | jax.Array) and hasattr(x, "__dlpack__"):
            x = x.detach() if hasattr(x, "detach") else x
            return jax.dlpack.from_dlpack(x.contiguous() if hasattr(x, "contiguous") else x)
        x = x if isinstance(x, jax.Array) else np.asarray(x)
        check_kind(x, name)
        return jnp.asarray(x if isinstance(x, jax.Array) else x.astype(x.dtype.newbyteorder("="), copy=False))
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, BufferError) as e:
        raise UserError(f"{name} cannot be read as an array of numbers: {str(e).splitlines()[0]}") from None


def _floats(x: Any, name: str) -> Array:
    x = to_jax(x, name)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise UserError(f"{name} are complex; give real numbers")
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.promote_types(jnp.result_type(float), jnp.float32))


def in_double_if_needed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a function of (features, labels) or of statistics in float64 where float32 would round its features away.

    That is where the input has more digits than float32 keeps (float64, or integers of 32 and 64 bits) and they carry the
    spread within classes: features of norm 1e9, or labels' worth of collapse below 1e-4 of rounding. Statistics that were
    collected so stay in float64, and what is measured from them too.
    """

    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        held = [x for x in given.values() if isinstance(x, ClassStats)]
        held += [x[0] for x in given.values() if isinstance(x, tuple) and x and isinstance(x[0], ClassStats)]
        wide = any(getattr(x.anchor, "dtype", None) == np.float64 for x in held)
        if jax.config.read("jax_enable_x64") or not (wide or _rounds(given.get("features"), given.get("labels"))):
            return function(*args, **kwargs)
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return wrapped


def _less(x: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """x - origin in float64; unsigned integers wrap around, which as signed ones is the difference."""
    found = x - origin
    return (found.view(f"i{found.itemsize}") if found.dtype.kind == "u" else found).astype(np.float64)


def _rounds(features: Any, labels: Any) -> bool:
    """Whether rounding to float32 would move features by more than 1e-4 of their spread within classes.

    Raises:
      UserError: rounding to float64 would move them so, and that of features less their mean would not.
    """
    try:
        x, y = (np.asarray(a) for a in (features, labels))
        if x.dtype == np.float32 or x.dtype.kind not in "fiu" or x.itemsize < 4 or y.dtype.kind not in "iu":
            return False
        if x.ndim != 2 or y.shape != x.shape[:1] or not x.size:
            return False
        if x.dtype.kind == "f" and not np.isfinite(x).all():  # said elsewhere, and by class
            return False
    except (TypeError, ValueError, RuntimeError):  # no arrays: said elsewhere too
        return False
    moved = within = away = 0.0
    for label in np.unique(y):  # class by class: no copy of everything
        own = x[y == label]
        moved += float(np.square(own - own.astype(np.float32).astype(x.dtype), dtype=np.float64).sum())
        residual = _less(own, own[:1])
        away = max(away, float(np.abs(_less(own[:1], x[:1])).max()))
        within += float(np.square(residual - residual.mean(axis=0)).sum())
    far = np.finfo(np.float64).eps * max(abs(float(x.min())), abs(float(x.max())))
    if x.size * far**2 > 1e-8 * within > 0 and x.size * (np.finfo(np.float64).eps * away) ** 2 < 1e-8 * within:
        raise UserError("features lie too far from the origin for float64 to tell them apart: subtract their mean first")
    return moved > 1e-8 * within > 0


def _opened(classifier: Any) -> tuple[Any, Any]:
    """(weight [K, D], bias [K] or None) of what frameworks hold a linear layer in."""
    if isinstance(classifier, tuple | list) and len(classifier) == 2:
        return classifier[0], classifier[1]
    read = classifier.get if isinstance(classifier, Mapping) else functools.partial(getattr, classifier)
    for name in ("kernel", "weight"):
        x = read(name, None)
        if x is not None:
            x, bias = (v.get_value() if hasattr(v, "get_value") else v for v in (x, read("bias", None)))  # NNX
            x = x.detach() if hasattr(x, "detach") else x
            return (x.T if name == "kernel" else x), bias
    raise UserError(
        f"classifier: got {type(classifier).__name__}, expected (weight [K, D], bias [K] or None), a linear layer with a "
        'weight, or a dictionary of "kernel" [D, K] and "bias"'
    )


def _pair(classifier: Any) -> Classifier:
    weight, bias = _opened(classifier)
    weight = _floats(weight, "classifier weights")
    return weight, jnp.zeros(weight.shape[:1], weight.dtype) if bias is None else _floats(bias, "classifier biases")


def positions(x: Any) -> tuple[int, ...]:
    """The axes of feature maps over which features are averaged; () for features [N, D], and for what is no array.

    Torch tensors are [N, C, H, W]. Of other arrays the two equal axes are the positions: [N, H, W, C] or [N, C, H, W].

    Raises:
      UserError: it cannot be told which axes are positions.
    """
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 4:
        return ()
    if type(x).__module__.partition(".")[0] == "torch":
        return (2, 3)
    if (shape[1] == shape[2]) != (shape[2] == shape[3]):
        return (1, 2) if shape[1] == shape[2] else (2, 3)
    raise UserError(f"features {list(shape)}: which axes are positions cannot be told; average over them to [N, D]")


def pooled(features: Any) -> Array:
    """Features [N, D], feature maps averaged over their positions."""
    found = _floats(features, "features")
    axes = positions(features if hasattr(features, "shape") else found)
    return found.mean(axis=axes, dtype=jnp.promote_types(found.dtype, jnp.float32)) if axes else found


def check_classifier(classifier: Classifier, num_classes: int, dim: int) -> Classifier:
    """(weight [K, D], bias [K]) as JAX arrays, or the fault."""
    weight, bias = _pair(classifier)
    if weight.shape != (num_classes, dim) or bias.shape != (num_classes,):
        raise UserError(
            f"classifier: expected weight [{num_classes}, {dim}] and bias [{num_classes}], a row a class, got "
            f"{list(weight.shape)} and {list(bias.shape)}"
        )
    if not all(np.isfinite(x).all() for x in (weight, bias)):
        raise UserError("classifier: weight or bias are NaN or infinite")
    return tuple(x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (weight, bias))


def check_labels(labels: Any) -> np.ndarray:
    """Labels [N] as NumPy integers, or the fault."""
    check_kind(labels, "labels")
    try:
        labels = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)  # torch
    except (TypeError, ValueError, RuntimeError) as e:
        raise UserError(f"labels cannot be read as an array of integers: {str(e).splitlines()[0]}") from None
    if not np.issubdtype(labels.dtype, np.integer) or labels.dtype.kind == "m":
        raise UserError(
            f"labels must be integers, got {labels.dtype}; np.unique(labels, return_inverse=True)[1] numbers them"
        )
    if labels.ndim != 1:
        raise UserError(f"expected labels [N], got {list(labels.shape)}")
    return labels


def check(
    features: Any, labels: Any, num_classes: int | None, classifier: Classifier | None = None
) -> tuple[Array, Array, int]:
    """Features [N, D] and labels [N] int32 as JAX arrays and the number of classes, or the fault."""
    features = pooled(features)
    labels = check_labels(labels)
    if features.ndim != 2:
        pool = "; average them over positions first" if features.ndim > 2 else ""
        raise UserError(
            f"expected features [N, D] and labels [N], got {list(features.shape)} and {list(labels.shape)}{pool}"
        )
    if len(labels) != len(features):
        raise UserError(f"{len(features)} features but {len(labels)} labels: expected one label a row")
    if not features.size:
        raise UserError(f"features are empty: {list(features.shape)}")
    if features.dtype == jnp.float64 and not jax.config.read("jax_enable_x64"):
        features = features.astype(jnp.float32)
    low, high = int(labels.min()), int(labels.max())
    if num_classes is not None and (isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer)):
        raise UserError(f"num_classes={num_classes!r}: expected an integer")
    if num_classes is None and classifier is not None:
        weight, _ = _pair(classifier)
        num_classes = len(weight) if weight.shape[1:] == features.shape[1:] else None
    classes = high + 1 if num_classes is None else int(num_classes)
    if low < 0 or high >= classes:
        raise UserError(f"labels run from {low} to {high}, outside [0, {classes})")
    if classes > max(MANY, 10 * len(labels)):
        raise UserError(f"{classes} classes for {len(labels)} examples: renumber the labels 0, 1, 2, ...")
    if np.sum(np.bincount(labels.astype(np.int64), minlength=classes) >= 2) < 2:
        raise UserError("collapse is between classes: expected two or more with two examples each")
    return features, jnp.asarray(labels.astype(np.int32)), classes


def check_fit(stats: ClassStats, features: Array, labels: np.ndarray) -> None:
    """Raises where features [N, D] with labels [N] cannot be looked at from these statistics."""
    count, dim = stats.anchor.shape
    check_shapes(features, labels, dim)
    if labels.size and (labels.min() < 0 or labels.max() >= count):
        raise UserError(f"labels run from {labels.min()} to {labels.max()}, outside the statistics' [0, {count})")


def check_outside(outside: Any, dim: int) -> Array:
    """Out-of-distribution features [M, D] or their mean [D] as a JAX array."""
    outside = _floats(outside, "outside features")
    if outside.ndim not in (1, 2) or outside.shape[-1] != dim or not outside.size:
        raise UserError(f"outside: expected features [M, {dim}] or their mean [{dim}], got {list(outside.shape)}")
    if not np.isfinite(outside).all():
        raise UserError("outside: features are NaN or infinite")
    return outside.astype(jnp.promote_types(outside.dtype, jnp.float32))


def check_centres(centres: Any) -> ClassStats:
    """Statistics to measure others about, or the fault."""
    expect(centres, ClassStats, "centres", "nc.collect(training features, training labels)")
    if np.sum(np.asarray(centres.count) >= 2) < 2:
        raise UserError("centres: expected two or more classes with two examples each")
    return check_sound(centres)


def check_sound(stats: ClassStats) -> ClassStats:
    """The statistics; raises where they have met NaN or infinite features, and says how many and in which classes."""
    check_stats(stats)
    bad = np.asarray(stats.bad)
    if bad.any():
        raise UserError(f"{bad.sum():.0f} examples have NaN or infinite features (classes {np.flatnonzero(bad).tolist()})")
    if not np.isfinite(stats.spread).all():
        raise UserError("the squared features overflow float32: divide them by a constant first")
    return stats
