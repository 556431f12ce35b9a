"""One pass over a split in evaluation mode: loss, accuracy, every layer's statistics, and the features asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncjax import mesh as meshes
from ncjax import nc
from ncjax.types import Array, Loss, Model, PyTree


class Evaluation(NamedTuple):
    """What one pass saw."""

    loss: float
    accuracy: float
    stats: dict[str, nc.ClassStats]
    features: dict[str, np.ndarray]  # [N, D] float32, in the order of the split
    labels: np.ndarray  # [N]


def widths(model: Model, variables: PyTree, image_shape: Sequence[int]) -> dict[str, int]:
    """Feature width D of every layer of a model."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    features, _ = jax.eval_shape(model.apply, variables, image)
    return {name: features[name].shape[-1] for name in model.layers}


def make_pass(model: Model, loss: Loss, dims: dict[str, int], mesh: Mesh, *, stats: Sequence[str] = (),
              keep: Sequence[str] = ()) -> Callable[[PyTree, Any], Evaluation]:
    """`(variables, source) -> Evaluation`. Compiled once per batch shape, whatever the split.

    Args:
      model, loss: what to run.
      dims: feature widths, from `widths`.
      mesh: devices.
      stats: layers whose `ClassStats` are kept; memory K*D + D*D scalars each.
      keep: layers whose features come back to the host; memory N*D float32 each.
    """

    def observe(seen: PyTree, variables: PyTree, batch: Any) -> tuple[PyTree, dict[str, Array], Array]:
        features, _ = model.apply(variables, batch.image)
        (total, correct, count), moments = seen
        real = jnp.sum(batch.mask)
        hits = jnp.sum((jnp.argmax(features["logits"], -1) == batch.label) * batch.mask)
        sums = (total + loss.value(features, batch.label, batch.mask) * real, correct + hits, count + real)
        moments = {name: nc.observe(m, features[name], batch.label, batch.mask) for name, m in moments.items()}
        # Labels leave through here, replicated: on several hosts a sharded batch cannot be read by any one of them.
        return (sums, moments), {name: features[name] for name in keep}, batch.label

    observe = meshes.compile_step(observe, mesh, donate=(0,))

    def run(variables: PyTree, source: Any) -> Evaluation:
        # The gather is compiled by itself: it depends on the split's size, the network does not.
        fetch = jax.jit(source.fetch)
        zero = np.zeros((), np.float32)
        seen = ((zero,) * 3, {name: nc.empty(model.num_classes, dims[name]) for name in stats})
        seen = meshes.place(seen, meshes.replicated(mesh))
        kept: dict[str, list[Array]] = {name: [] for name in keep}
        labels = []
        key = jax.random.key(0)  # evaluation draws nothing
        for item in source.items(np.arange(source.size)):
            batch = fetch(source.arrays, item, key)
            seen, features, label = observe(seen, variables, batch)
            labels.append(label)
            for name in keep:
                kept[name].append(features[name])
        (total, correct, count), moments = seen

        def gather(parts: list[Array]) -> np.ndarray:
            last = source.size - (len(parts) - 1) * source.batch_size
            sizes = [source.batch_size] * (len(parts) - 1) + [last]
            return np.concatenate([np.asarray(x)[:n] for x, n in zip(parts, sizes, strict=True)])

        assert int(count) == source.size, (int(count), source.size)
        features = {name: gather(parts) for name, parts in kept.items()}
        return Evaluation(float(total) / source.size, float(correct) / source.size, moments, features, gather(labels))

    return run


def collapse(seen: Evaluation, centres: Evaluation, *, readout: str | None = None,
             classifier: tuple[Array, Array] | None = None) -> dict[str, nc.Report]:
    """A report for every layer whose statistics were kept; NC3 and NC4 where the classifier reads.

    Where features were kept too, a second look at them gives intervals, per-class values and decisions.

    Args:
      seen: the split to describe; the readout's features must have been kept for NC4.
      centres: the training split's pass, whose class means NC4 uses, and about which other splits are measured too.
      readout, classifier: the layer that the classifier (weight [K, D], bias [K]) reads, if one is to take part.
    """
    out = {}
    for name, stats in seen.stats.items():
        own = classifier if name == readout else None
        look = about = None
        if name in seen.features:
            pair = (seen.features[name], seen.labels)
            look = nc.look_at(stats, *pair, classifier=own)
            if centres is not seen:
                about = (centres.stats[name], nc.look_at(centres.stats[name], *pair, classifier=own))
        out[name] = nc.report(stats, classifier=own, look=look, about=about)
    return out
