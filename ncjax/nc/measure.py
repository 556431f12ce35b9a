"""Arrays in, a report out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core import programs
from ncjax.core.errors import UserError
from ncjax.core.resolve import own_name
from ncjax.core.types import Array
from ncjax.nc import metrics, null, spectra, uncertainty
from ncjax.nc import projected as looks
from ncjax.nc.chunks import fold, rows_together
from ncjax.nc.geometry import Geometry, check_weighting, double, geometry, geometry_of, refit
from ncjax.nc.inputs import (
    Classifier,
    check,
    check_centres,
    check_classifier,
    check_fit,
    check_labels,
    check_outside,
    check_sound,
    in_double_if_needed,
    pooled,
    positions,
)
from ncjax.nc.kinds import expect
from ncjax.nc.metric import ON_THE_HOST, About, applied, asks_for
from ncjax.nc.projected import Look
from ncjax.nc.report import ARRAYS, SCALARS, TRUSTED, Report, assemble
from ncjax.nc.stats import ClassStats, by_class, check_stats, empty, observe

TILT_ROWS = 1024  # examples that the interval's smallest part is estimated from


@functools.partial(programs.jit, static_argnames="rows")
def _collect(start: ClassStats, features: Array, labels: Array, *, rows: int) -> ClassStats:
    return fold(observe, start, features, labels, rows)


@functools.partial(programs.jit, static_argnames=("rows", "decisions"))
def _look(frame: looks.Frame, features: Array, labels: Array, *, rows: int, decisions: bool) -> Look:
    step = functools.partial(_step, frame, decisions)
    return fold(step, looks.unseen(frame), features, labels, rows)


def _step(frame: looks.Frame, decisions: bool, seen: Look, features: Array, labels: Array) -> Look:
    return looks.look(seen, frame, features, labels, decisions=decisions)


_geometry_jit = programs.jit(geometry_of, small=True, static_argnames="weighting")
_frame = programs.jit(looks.frame_of, small=True)


@programs.jit
def _tilt(frame: looks.Frame, features: Array, labels: Array, sample: Array) -> looks.Tilt:
    return looks.tilt(frame, features[sample], labels[sample])


@functools.partial(programs.jit, static_argnums=2)
def _means_at_once(features: Array, labels: Array, num_classes: int) -> ClassStats:
    """First look of one read: class means as rounded float32 sums, no spread."""
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    count = by_class(jnp.ones(labels.shape, dtype), labels, num_classes)
    mean = by_class(features.astype(dtype), labels, num_classes) / jnp.maximum(count, 1)[:, None]
    none = jnp.zeros_like(count)
    return ClassStats(count=count, anchor=mean, shift=jnp.zeros_like(mean), spread=none, bad=none, scatter=None)


def _alone(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a compiled function whose work is a small eigenproblem, with one BLAS thread.

    More would not help it, and they spin for a while after: a third of the time of the products that follow.
    """
    with null.blas().limit(limits=1, user_api="blas"):
        return jax.block_until_ready(function(*args, **kwargs))


def _geometry(stats: ClassStats, weighting: str) -> Geometry:
    return _alone(_geometry_jit, stats, check_weighting(weighting))


def _rounded(g: Geometry, stats: ClassStats) -> bool:
    """Whether the rounding of class means summed in float32, one example after another, may show in the metrics.

    It may where they are not finite. Such a sum of n terms is off by about eps sqrt(n) / 6 of itself in each coordinate.
    Means off by e as vectors add e^2 to squared distances, and e / (sqrt(D) s) to the relative error of NC1, s the smallest
    singular value of the means.
    """
    n, spread, values = (np.asarray(x, np.float64) for x in (g.n, stats.spread, g.values))
    error = np.finfo(np.float32).eps * np.sqrt(n.max()) / 3 * float(g.norm)
    within = np.sqrt(spread.sum() / max(n.sum(), 1))
    smallest = np.sqrt(max(values[: int(g.k) - 1].min(initial=np.inf), 0) * stats.anchor.shape[1])
    return not (error < 1e-3 * within < np.inf and error < 1e-6 * smallest)


class Inputs(NamedTuple):
    """What there is to measure beside the geometry; None where it was not given. See `ncjax.nc.metric`."""

    stats: ClassStats
    look: Look | None
    about: tuple[ClassStats, Look] | None
    outside: Array | None
    tilt: looks.Tilt | None


Functions = tuple[tuple[str, Any], ...]  # metrics by name


def _chosen(functions: dict[str, Any], *, host: bool, classifier: bool) -> Functions:
    """The metrics that run on the host, or those that do not and look at a classifier, or those that do neither."""
    asked = {name: set(asks_for(f)) for name, f in functions.items()}
    return tuple(
        (name, f)
        for name, f in functions.items()
        if bool(asked[name] & set(ON_THE_HOST)) == host and (host or bool(asked[name] & {"weight", "angles"}) == classifier)
    )


def _by_name(g: Geometry, inputs: Inputs, weighting: str, spectrum: bool) -> dict[str, Any]:
    """The inputs that metrics name, but for the classifier's."""
    about = None
    if inputs.about is not None:
        about = About(g=geometry(inputs.about[0], weighting), stats=inputs.about[0], look=inputs.about[1])
    return {
        "g": g,
        "stats": inputs.stats,
        "look": inputs.look,
        "about": about,
        "outside": inputs.outside,
        "spectrum": spectra.spectrum_of(inputs.stats) if spectrum else None,
    }


@functools.partial(programs.jit, small=True, static_argnames=("functions", "weighting", "spectrum"))
@double
def _values(g: Geometry, inputs: Inputs, *, functions: Functions, weighting: str, spectrum: bool) -> dict[str, Array]:
    stats, look = inputs.stats, inputs.look
    g = refit(g, stats)
    out = applied(dict(functions), _by_name(g, inputs, weighting, spectrum))
    errors = uncertainty.errors_of(g, stats, look, inputs.tilt)
    out |= {f"error.{name}": getattr(errors, name) for name in TRUSTED}
    resolution = uncertainty.resolution_of(g)
    if look is None and stats.scatter is not None:
        resolution = jnp.where(uncertainty.scatter_rounding_of(g, stats) > uncertainty.ROUGH * out["nc1"], 0, resolution)
    return out | {"rank": jnp.sum(g.used), "cut": g.cut, "resolution": resolution}


@functools.partial(programs.jit, small=True, static_argnames=("functions", "weighting", "spectrum", "angles"))
@double
def _classifier_values(
    g: Geometry, inputs: Inputs, weight: Array, *, functions: Functions, weighting: str, spectrum: bool, angles: bool
) -> dict[str, Array]:
    """By itself: at 1000 classes a K x K matrix takes 8 MB, and a program of everything holds many at once."""
    g = refit(g, inputs.stats)
    between = metrics.subspace_angles.of(g, weight) if angles else None
    known = _by_name(g, inputs, weighting, spectrum) | {"weight": weight, "angles": between}
    out = applied(dict(functions), known)
    return out if between is None else out | {"angles": between}


def with_own(extra: Sequence[Any]) -> dict[str, Any]:
    """The metrics of a report, by name, with those of the caller's own.

    Raises:
      UserError: two have one name, or one asks for what there is not, see `ncjax.nc.metric`.
    """
    if isinstance(extra, str) or not all(map(callable, extra)):
        raise UserError(f"metrics={extra!r}: expected a list of functions")
    names = [own_name(f) for f in extra]
    for function in extra:
        asks_for(function)
    twice = [name for name in names if name in SCALARS or names.count(name) > 1]
    if twice:
        raise UserError(f"metric {twice[0]!r}: there is one of that name; rename the function")
    return SCALARS | dict(zip(names, extra, strict=True))


@in_double_if_needed
def report(
    stats: ClassStats,
    *,
    classifier: Classifier | None = None,
    look: Look | None = None,
    about: tuple[ClassStats, Look] | None = None,
    outside: Array | None = None,
    weighting: str = "class",
    spectrum: bool = False,
    angles: bool = False,
    tilt: looks.Tilt | None = None,
    known: Geometry | None = None,
    sample: np.ndarray | None = None,
    floors: bool | null.Draws = True,
    metrics: Sequence[Any] = (),
) -> Report:
    """Every metric that what is given allows; the others are NaN.

    Args:
      stats: of the features to describe.
      classifier: (weight [K, D], bias [K]), for NC2 of W, NC3 and the angles; the looks' frames bring it to NC4.
      look: second look at the same features in a frame of `stats` with this weighting: intervals, per-class NC1, pairs,
        decisions, and NC1 where `stats` keep no scatter.
      about: other class means and a look at these features in *their* frame: the training set's for test features.
        Decisions (NC4, accuracies) then come from it.
      outside: mean [D] or features [M, D] out of distribution, for NC5.
      weighting: "class" or "sample", see `nc1`; that of the frames.
      spectrum: also ranks and VCI, from the scatter, D^3 operations.
      angles: also the angles beyond 256 directions.
      tilt: of `ncjax.nc.tilt`, for the interval of NC1 where `stats` keep no scatter.
      known: the geometry of `stats`, where it was computed before.
      sample: features [M, D] of all examples, or of the rows that `ncjax.nc.null.choose_rows` chooses, from which floors
        are then drawn; of classes with two examples or more.
      floors: whether there are any, or their draws (`ncjax.nc.null.null_draws`) where those were made before. Without a
        sample they come from the scatter, D^3 operations.
      metrics: functions to report beside ncjax's own, see `ncjax.nc.metric`.

    Raises:
      UserError: the classifier's shape does not fit, or the features were NaN or infinite.
    """
    check_sound(stats)
    if classifier is not None:
        classifier = check_classifier(classifier, *stats.anchor.shape)
    for name, x, kind in (("look", look, Look), ("tilt", tilt, looks.Tilt)):
        if x is not None:
            expect(x, kind, name, f"nc.{name}")
    if about is not None and not (isinstance(about, tuple) and len(about) == 2 and isinstance(about[1], Look)):
        raise UserError("about: expected (statistics, look), as nc.collect and nc.look_at return them")
    if outside is not None:
        outside = check_outside(outside, stats.anchor.shape[1])
    g = _geometry(stats, weighting) if known is None else known
    functions = with_own(metrics)
    inputs = Inputs(stats=stats, look=look, about=about, outside=outside, tilt=tilt)
    shared = {"weighting": weighting, "spectrum": spectrum}
    found = _alone(
        _values,
        g,
        inputs,
        functions=_chosen({**functions, **ARRAYS}, host=False, classifier=False),
        **shared,
    )
    if classifier is not None:
        of_classifier = _chosen(functions, host=False, classifier=True)
        angles = angles or g.values.shape[0] <= looks.FULL_UP_TO
        found |= _alone(_classifier_values, g, inputs, classifier[0], functions=of_classifier, angles=angles, **shared)
    found = {name: np.asarray(x) for name, x in (found | {"spread": stats.spread}).items()}
    found |= applied(
        dict(_chosen(functions, host=True, classifier=False)), {"decisions": look if about is None else about[1]}
    )
    if np.isnan(found.get("nc1_pairs", 0)).all():  # not looked for
        found.pop("nc1_pairs")
    if floors is True:
        floors = null.null_draws(stats, sample, weighting=weighting)
    return assemble(found, functions, floors or {}, np.asarray(stats.count), stats.anchor.shape[1], weighting)


@in_double_if_needed
def collect(features: Array, labels: Array, *, num_classes: int | None = None, scatter: bool | None = None) -> ClassStats:
    """Class statistics of features [N, D] with integer labels [N]: `observe`, over parts that fit the cache.

    Args:
      features, labels, num_classes: as for `measure`.
      scatter: as for `empty`.

    Raises:
      UserError: as for `measure`.
    """
    features, labels, classes = check(features, labels, num_classes)
    start = empty(classes, features.shape[1], jnp.promote_types(features.dtype, jnp.float32), scatter=scatter)
    return check_sound(_collect(start, features, labels, rows=rows_together(features, classes)))


def _look_from(frame: looks.Frame, features: Array, labels: Array, decisions: bool) -> Look:
    return _look(frame, features, labels, rows=rows_together(features, frame.keep.shape[0]), decisions=decisions)


@in_double_if_needed
def look_at(
    stats: ClassStats,
    features: Array,
    labels: Array,
    *,
    classifier: Classifier | None = None,
    weighting: str = "class",
    decisions: bool = True,
) -> Look:
    """A second look at features [N, D] in the frame of `stats`: `look`, over parts that fit the cache.

    Raises:
      UserError: width or labels are not those of `stats`.
    """
    features, labels = pooled(features), check_labels(labels)
    check_stats(stats)
    check_fit(stats, features, labels)
    labels = jnp.asarray(labels.astype(np.int32))
    if classifier is not None:
        classifier = check_classifier(classifier, *stats.anchor.shape)
    frame = _frame(_geometry(stats, weighting), stats, classifier)
    return _look_from(frame, features, labels, decisions)


def _sample(features: Array, labels: Array, stats: ClassStats) -> np.ndarray:
    rows = null.choose_rows(len(features), len(stats.count))
    return np.asarray(features[rows[null.of_usable_classes(np.asarray(labels)[rows], np.asarray(stats.count))]])


def _spectral(
    features: Array, labels: Array, num_classes: int, weighting: str, functions: dict[str, Any]
) -> dict[str, float]:
    """The metrics of the spectrum, where examples are fewer than features: of their coordinates in the span of all.

    Those are U S of features = U S V^T, by the N x N products: rotations change no spectrum.
    """
    x = np.asarray(features, np.float64)
    values, vectors = np.linalg.eigh(x @ x.T)
    coordinates = (vectors * np.sqrt(np.maximum(values, 0))).astype(features.dtype)
    stats = collect(coordinates, np.asarray(labels), num_classes=num_classes, scatter=True)
    inputs = Inputs(stats=stats, look=None, about=None, outside=None, tilt=None)
    chosen = (("nc1", SCALARS["nc1"]), *functions.items())  # nc1 says how coarse the scatter is
    found = _alone(_values, _geometry(stats, weighting), inputs, functions=chosen, weighting=weighting, spectrum=True)
    return {name: float(found[name]) for name in functions if name in found}


@in_double_if_needed
def measure(
    features: Array,
    labels: Array,
    *,
    classifier: Classifier | None = None,
    num_classes: int | None = None,
    centres: ClassStats | None = None,
    outside: Array | None = None,
    weighting: str = "class",
    spectrum: bool = False,
    decisions: bool = True,
    floors: bool = True,
    metrics: Sequence[Any] = (),
) -> Report:
    """Collapse of features [N, D] with integer labels [N], in two reads of the features.

    Args:
      features: [N, D] NumPy, JAX or DLPack-capable (torch) array, table of pandas or lists; float64 and integers count
        as float32 where that does not round their spread away, else as float64. Feature maps, [N, C, H, W] of torch and
        [N, H, W, C] or [N, C, H, W] with H = W of others, are averaged over positions, and the report says so.
      labels: [N] integers.
      classifier: (weight [K, D], bias [K] or None), a `torch.nn.Linear`, or Flax's {"kernel", "bias"}, to add NC2 of W,
        NC3, NC4 and the accuracy.
      num_classes: K, default that of `centres`, else of the classifier, else the largest label + 1.
      centres: statistics of another set (`collect` of the training features), about whose class means NC1 and CDNV are
        then measured too, and whose means decide in NC4.
      outside: mean [D] or features [M, D] out of distribution, for NC5.
      weighting: "class" or "sample", see `nc1`.
      spectrum: also ranks, RankMe and VCI, 2 N D^2 operations (2 N^2 D with fewer examples than features) and per-class
        spectra in float64; and the angles where they are over 256.
      decisions: find nearest class means and the classifier's decisions (NC4, accuracies, `nc1_pairs`, directional CDNV).
      floors: also say what the metrics are where labels are permuted, see `ncjax.nc.null`.
      metrics: functions to report beside ncjax's own, see `ncjax.nc.metric`.

    Raises:
      UserError: shapes disagree, labels are no integers in [0, K), fewer than two classes have two examples, or
        features are NaN or infinite (the line says how many, and in which classes).
    """
    if centres is not None:
        num_classes = check_centres(centres).count.shape[0] if num_classes is None else num_classes
    over, shape = positions(features), list(getattr(features, "shape", ()))
    features, labels, classes = check(features, labels, num_classes, classifier)
    if classifier is not None:
        classifier = check_classifier(classifier, classes, features.shape[1])
    few = spectrum and len(features) < features.shape[1]
    stats = _means_at_once(features, labels, classes)
    known = _geometry(stats, weighting)
    look = _look_from(_frame(known, stats, classifier)._replace(shift=None), features, labels, decisions)
    stats = stats._replace(spread=look.rho)
    # Means summed in one go are rounded; where that may show, sum again about an example of each class. That raises
    # where features are not finite.
    scatter = spectrum and not few
    if scatter or _rounded(known, stats):
        stats = collect(features, labels, num_classes=classes, scatter=scatter)
        known = _geometry(stats, weighting)
        look = _look_from(_frame(known, stats, classifier), features, labels, decisions)
    about = tilt = None
    if centres is not None:
        about = (
            centres,
            look_at(centres, features, labels, classifier=classifier, weighting=weighting, decisions=decisions),
        )
    if stats.scatter is None and known.values.shape[0] <= looks.FULL_UP_TO:
        # Drawn at random, always the same: labels may come in any order, a periodic one too.
        sample = np.random.default_rng(0).choice(len(features), min(TILT_ROWS, len(features)), replace=False)
        tilt = _tilt(_frame(known, stats, None), features, labels, sample)
    found = report(
        stats,
        classifier=classifier,
        look=look,
        about=about,
        outside=outside,
        weighting=weighting,
        spectrum=scatter,
        angles=spectrum,
        tilt=tilt,
        known=known,
        sample=_sample(features, labels, stats) if floors else None,
        floors=floors,
        metrics=metrics,
    )
    if over:
        note = f"feature maps {shape} were averaged over axes {over[0]} and {over[1]}"
        found = dataclasses.replace(found, notes=(*found.notes, note))
    if not spectrum:
        return found
    functions = with_own(metrics)
    if few:
        own = {name: f for name, f in functions.items() if "spectrum" in asks_for(f)}
        found = dataclasses.replace(found, values=found.values | _spectral(features, labels, classes, weighting, own))
    own = dict(_chosen(functions, host=True, classifier=False))
    values = {name: float(x) for name, x in applied(own, {"features": features, "labels": labels}).items()}
    return dataclasses.replace(found, values=found.values | values)
