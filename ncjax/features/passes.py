"""Passes over a split in evaluation mode: loss, accuracy, every layer's statistics, the features asked for; second looks.

A layer's collapse needs K D numbers, and D^2 more where that is cheap. Where it is not (D > 4096), or where intervals are
wanted for layers whose features are not kept, the split runs through the network again, and every layer is looked at in the
directions of its class means: K D numbers still, whatever the number of images.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncjax import nc
from ncjax.core import mesh as meshes
from ncjax.core import programs
from ncjax.core.types import Array, Batch, Loss, Model, Objective, PyTree, lift
from ncjax.data.batches import Batches
from ncjax.features.resume import Parts
from ncjax.features.sink import LABELS, Sample, Sink
from ncjax.models.layers import STATISTICS_MOMENTUM
from ncjax.nc.null import choose_rows, null_draws_of, of_usable_classes

Looks = dict[str, tuple[nc.Look, ...]]
_frame = programs.jit(nc.frame, small=True)


class Evaluation(NamedTuple):
    """What one pass saw."""

    loss: float
    accuracy: float
    stats: dict[str, nc.ClassStats]
    features: dict[str, np.ndarray]  # [N, D] float32, in the order of the split
    sample: dict[str, np.ndarray]  # of the other layers with statistics, [M, D] features of some examples, for their floors
    labels: np.ndarray  # [N]
    waited: float = 0.0  # share of the time that the pass waited for images to be read and decoded


@functools.lru_cache(maxsize=32)
def _gather(fetch: Callable[..., Batch]) -> Callable[..., Batch]:
    return jax.jit(fetch)


def evaluation_batches(batches: Batches, first: int = 0) -> Iterator[Batch]:
    """Every batch of a split from the `first` on, in order."""
    # The gather is compiled by itself: it depends on the split's size, the network does not.
    fetch, key = _gather(batches.fetch), jax.random.key(0)  # evaluation draws nothing
    for item in batches.items(np.arange(first * batches.batch_size, batches.size)):
        yield fetch(batches.arrays, item, key)


def make_pass(
    model: Model,
    loss: Loss | Objective,
    dims: dict[str, int],
    mesh: Mesh,
    *,
    stats: Sequence[str] = (),
    keep: Sequence[str] = (),
    scatter: bool | None = None,
) -> Callable[..., Evaluation]:
    """`(variables, batches, tick=None, parts=None) -> Evaluation`. Compiled once per batch shape, whatever the split.

    `tick(done, size)` hears of every batch, when its features have arrived: they come to the host one batch behind. With
    `parts`, what was seen is written there now and then, and a pass that finds something there goes on from it.

    Args:
      model, loss: what to run.
      dims: feature widths, from `widths`.
      mesh: devices.
      stats: layers whose `ClassStats` are kept; memory 2 K D scalars each, and D D where they keep a scatter. On the host,
        features of a sample (`ncjax.nc.null.choose_rows`), from which floors are drawn.
      keep: layers whose features come back to the host; memory N D float32 each.
      scatter: as for `nc.empty`.
    """

    sampled = [name for name in stats if name not in keep]
    # Layers of one width are seen by one program: a GPU spends longer on beginning so small operations than on doing them.
    widths = {dims[name]: [other for other in stats if dims[other] == dims[name]] for name in stats}
    layers = tuple((width, tuple(names)) for width, names in widths.items())
    observe = _observer(model, lift(loss).evaluate, layers, (*keep, *sampled), mesh)

    def run(
        variables: PyTree, batches: Batches, tick: Callable[[int, int], None] | None = None, parts: Parts | None = None
    ) -> Evaluation:
        zero = np.zeros((), np.float32)
        start = ((zero,) * 3, {width: _none(model.num_classes, width, scatter, len(widths[width])) for width in widths})
        sample = Sample({name: dims[name] for name in sampled}, batches, model.num_classes, mesh)
        sink = Sink((*keep, LABELS), batches, sample, tick, parts)
        sums = meshes.place(sink.resume(start), meshes.replicated(mesh))
        first = -(-sink.done // batches.batch_size)
        coming = evaluation_batches(batches, first)
        batch, waited = next(coming, None), 0.0  # the first, which compiles, does not count
        started = time.perf_counter()
        for step in range(first, batches.steps):
            sink.write_if_due(sums)
            sums, features, label = observe(sums, variables, batch)
            sample.add(step, {name: features.pop(name) for name in sampled})
            asked = time.perf_counter()
            batch = next(coming, None)
            waited += time.perf_counter() - asked
            sink.add({**features, LABELS: label})
        (total, correct, count), moments = sums
        features, few = sink.close(sums)
        assert int(count) == len(features[LABELS]) == batches.size, (int(count), batches.size)
        apart = _apart(moments)
        return Evaluation(
            loss=float(total) / batches.size,
            accuracy=float(correct) / batches.size,
            stats={name: apart[dims[name]][widths[dims[name]].index(name)] for name in stats},
            features={name: features[name] for name in keep},
            sample=few,
            labels=features[LABELS],
            waited=waited / (time.perf_counter() - started),
        )

    return run


@functools.lru_cache(maxsize=32)
def _observer(
    model: Model,
    evaluate: Callable[..., Array],
    layers: tuple[tuple[int, tuple[str, ...]], ...],
    out: tuple[str, ...],
    mesh: Mesh,
) -> Callable[..., Any]:
    """`(seen, variables, batch) -> (seen, features of `out`, labels)`, one for all passes that see the same.

    Args:
      model, evaluate, mesh: what to run, where.
      layers: by width, those whose statistics are kept.
      out: layers whose features are given.
    """

    def observe(seen: PyTree, variables: PyTree, batch: Any) -> tuple[PyTree, dict[str, Array], Array]:
        features, _ = model.apply(variables, batch.image)
        (total, correct, count), moments = seen
        real = jnp.sum(batch.mask)
        hits = jnp.sum((jnp.argmax(features["logits"], -1) == batch.label) * batch.mask)
        sums = (total + evaluate(features, batch.label, batch.mask) * real, correct + hits, count + real)
        alike = jax.vmap(nc.observe, in_axes=(0, 0, None, None))
        moments = {
            width: alike(moments[width], jnp.stack([features[name] for name in names]), batch.label, batch.mask)
            for width, names in layers
        }
        # Labels leave through here, replicated: on several hosts a sharded batch cannot be read by any one of them.
        return (sums, moments), {name: features[name] for name in out}, batch.label

    return meshes.compile_step(observe, mesh, donate=(0,), jit=programs.jit)


def _none(num_classes: int, width: int, scatter: bool | None, layers: int) -> nc.ClassStats:
    """The statistics of no examples at some layers of one width."""
    return jax.tree.map(lambda x: np.stack([x] * layers), nc.empty(num_classes, width, scatter=scatter))


@jax.jit
def _apart(stacked: dict[int, nc.ClassStats]) -> dict[int, list[nc.ClassStats]]:
    """Statistics of layers of one width, layer by layer."""
    return {width: [jax.tree.map(lambda x, i=i: x[i], s) for i in range(len(s.count))] for width, s in stacked.items()}


@functools.lru_cache(maxsize=32)
def make_second_pass(model: Model, mesh: Mesh) -> Callable[[PyTree, Any, dict[str, tuple[nc.Frame, ...]]], Looks]:
    """`(variables, batches, frames) -> looks`: the split once more, each layer looked at from each of its frames."""

    def look(seen: Looks, variables: PyTree, frames: dict[str, tuple[nc.Frame, ...]], batch: Any) -> Looks:
        features, _ = model.apply(variables, batch.image)
        return {
            name: tuple(
                nc.look(x, frame, features[name], batch.label, batch.mask)
                for x, frame in zip(seen[name], frames[name], strict=True)
            )
            for name in frames
        }

    look = meshes.compile_step(look, mesh, donate=(0,), jit=programs.jit)

    def run(variables: PyTree, batches: Batches, frames: dict[str, tuple[nc.Frame, ...]]) -> Looks:
        frames = meshes.place(frames, meshes.replicated(mesh))
        seen = {name: tuple(nc.unseen(frame) for frame in several) for name, several in frames.items()}
        seen = meshes.place(seen, meshes.replicated(mesh))
        for batch in evaluation_batches(batches):
            seen = look(seen, variables, frames, batch)
        return seen

    return run


def reestimate(model: Model, variables: PyTree, batches: Batches, mesh: Mesh) -> PyTree:
    """The variables with every BatchNorm's statistics replaced by those of a split, in one pass.

    Each batch is normalised by its own statistics, as in training; mean and variance over the split are
    mean_b(m_b) and mean_b(v_b + m_b^2) - mean_b(m_b)^2 over batches b, weighted by their examples.
    """
    blocks = frozenset(model.backbone)
    share = 1.0 - STATISTICS_MOMENTUM

    def observe(sums: PyTree, variables: PyTree, batch: Any) -> PyTree:
        blank = {**variables, "batch_stats": jax.tree.map(jnp.zeros_like, variables["batch_stats"])}
        _, moved = model.apply(blank, batch.image, live=blocks, key=jax.random.key(0), mask=batch.mask)
        real = jnp.sum(batch.mask)
        total, moments = sums
        moved = jax.tree.map(lambda x: x / share, moved["batch_stats"])  # running statistics started from zero
        return total + real, jax.tree.map(lambda t, x: t + real * x, moments, _raw(moved))

    sums = jax.tree.map(np.zeros_like, (np.float32(0), variables["batch_stats"]))
    observe = meshes.compile_step(observe, mesh, jit=programs.jit)
    for batch in evaluation_batches(batches):
        sums = observe(sums, variables, batch)
    total, moments = jax.tree.map(np.asarray, sums)
    return {**variables, "batch_stats": _centred(jax.tree.map(lambda x: x / total, moments))}


def _map_norms(function: Callable[[dict[str, Array]], dict[str, Array]], stats: PyTree) -> PyTree:
    """Applies `function` to every {"mean", "var"} in a tree of BatchNorm statistics."""
    if set(stats) == {"mean", "var"}:
        return function(stats)
    return {name: _map_norms(function, tree) for name, tree in stats.items()}


def _raw(stats: PyTree) -> PyTree:
    return _map_norms(lambda s: {"mean": s["mean"], "var": s["var"] + jnp.square(s["mean"])}, stats)


def _centred(stats: PyTree) -> PyTree:
    return _map_norms(lambda s: {"mean": s["mean"], "var": np.maximum(s["var"] - np.square(s["mean"]), 0.0)}, stats)


def _looks_at_kept(
    seen: Evaluation, name: str, classifier: tuple[Array, Array] | None, several: Sequence[nc.ClassStats]
) -> tuple[nc.Look, ...]:
    return tuple(nc.look_at(stats, seen.features[name], seen.labels, classifier=classifier) for stats in several)


def collapse(
    seen: Evaluation,
    centres: Evaluation,
    *,
    readout: str | None = None,
    classifier: tuple[Array, Array] | None = None,
    everywhere: bool = False,
    again: Callable[[dict[str, tuple[nc.Frame, ...]]], Looks] | None = None,
    metrics: Sequence[Callable[..., Any]] = (),
) -> dict[str, nc.Report]:
    """A report for every layer whose statistics were kept; NC3 and NC4 where the classifier reads.

    Where features were kept too, a second look at them gives intervals, per-class values and decisions. Where they were
    not and the statistics keep no scatter, or one too coarse for NC1, it takes a second pass through the network.

    Args:
      seen: the split to describe; NC4 needs a second look at the readout.
      centres: the training split's pass, whose class means NC4 uses, and about which other splits are measured too.
      readout, classifier: the layer that the classifier (weight [K, D], bias [K]) reads, if one is to take part.
      everywhere: a second pass for every layer whose features were not kept, not only for those that need it.
      again: that second pass over the split, `make_second_pass` but for its frames.
      metrics: functions to report beside ncjax's own.
    """
    own = {name: classifier if name == readout else None for name in seen.stats}
    means = {name: [stats] + ([centres.stats[name]] if centres is not seen else []) for name, stats in seen.stats.items()}

    counts = next((np.asarray(s.count) for s in seen.stats.values()), np.zeros(0))  # the same at every layer
    chosen = choose_rows(len(seen.labels), len(counts))
    usable = of_usable_classes(seen.labels[chosen], counts)

    samples = {name: seen.sample[name] if name in seen.sample else seen.features[name][chosen] for name in seen.stats}
    draws = dict(zip(samples, null_draws_of([(seen.stats[name], x[usable]) for name, x in samples.items()]), strict=True))

    def report(name: str, looks: tuple[nc.Look, ...]) -> nc.Report:
        about = (centres.stats[name], looks[1]) if len(looks) > 1 else None
        return nc.report(
            seen.stats[name],
            classifier=own[name],
            look=looks[0] if looks else None,
            about=about,
            floors=draws[name],
            metrics=metrics,
        )

    out, wanted = {}, []
    for name, stats in seen.stats.items():
        if name in seen.features:
            out[name] = report(name, _looks_at_kept(seen, name, own[name], means[name]))
        elif again is not None and (everywhere or stats.scatter is None):
            wanted.append(name)
        else:
            out[name] = report(name, ())
            if again is not None and "float32_limit" in out[name].flags:
                wanted.append(name)
    if wanted and again is not None:
        frames = {name: tuple(_frame(stats, own[name]) for stats in means[name]) for name in wanted}
        out |= {name: report(name, looks) for name, looks in again(frames).items()}
    return {name: out[name] for name in seen.stats}
