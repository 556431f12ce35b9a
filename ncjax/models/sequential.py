"""Turns an ordered list of Linen blocks into a `Model`. This file and its siblings are the only users of Linen.

Blocks run one after another, each applied on its own variables. So freezing a block is choosing its mode, and any
prefix or suffix of the network can be run alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ncjax.core.errors import UserError
from ncjax.core.types import Array, Model, PyTree
from ncjax.models.layers import batch_norm, identity


class Block(NamedTuple):
    """A named stage. `module(x, train, mask)` maps activations; `pool` reduces its output to [N, D]."""

    name: str
    module: nn.Module
    pool: Callable[[Array], Array]


class Projection(nn.Module):
    """`layers` dense layers of the input's width, BatchNorm and ReLU between them; thrown away at transfer."""

    layers: int

    @nn.compact
    def __call__(self, x: Array, train: bool, mask: Array | None) -> Array:
        width = x.shape[-1]
        for i in range(self.layers):
            x = nn.Dense(width, name=f"dense{i}")(x)
            if i < self.layers - 1:
                x = nn.relu(batch_norm(x, train, mask, jnp.float32, name=f"norm{i}"))
        return x


class Classifier(nn.Module):
    """Linear map to class scores, in float32."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool = False, mask: Array | None = None) -> Array:
        return nn.Dense(self.num_classes, name="linear")(x)


def classifier_arrays(params: PyTree) -> tuple[Array, Array]:
    """(weight [K, D], bias [K]) of the "head" block, the way the collapse metrics take a classifier."""
    linear = params["head"]["linear"]
    return linear["kernel"].T, linear["bias"]


def with_classifier_arrays(params: PyTree, weight: Array, bias: Array) -> PyTree:
    """The same parameters with the linear map of the "head" block set to (weight [K, D], bias [K])."""
    return {**params, "head": {**params["head"], "linear": {"kernel": jnp.asarray(weight).T, "bias": jnp.asarray(bias)}}}


def classify(params: PyTree, x: Array, num_classes: int) -> Array:
    """Class scores [N, K] of readout features [N, D] under the "head" block's parameters."""
    return Classifier(num_classes).apply({"params": params["head"]}, x)


def new_classifier(key: Array, dim: int, num_classes: int) -> PyTree:
    """Fresh parameters of a "head" block reading `dim` features."""
    return Classifier(num_classes).init(key, jnp.zeros((1, dim)))["params"]


def _run(
    block: Block, variables: PyTree, x: Array, train: bool, key: Array | None, mask: Array | None
) -> tuple[Array, PyTree]:
    own = {kind: tree[block.name] for kind, tree in variables.items() if block.name in tree}
    rngs = {"dropout": key} if key is not None else {}
    if not train:
        return block.module.apply(own, x, False, None), own.get("batch_stats")
    x, updates = block.module.apply(own, x, True, mask, mutable=["batch_stats"], rngs=rngs)
    return x, updates.get("batch_stats")


def _check(names: Sequence[str], wanted: Sequence[str | None]) -> None:
    unknown = [n for n in wanted if n is not None and n not in names]
    if unknown:
        raise UserError(f"no block {unknown[0]!r}; blocks: {', '.join(names)}")


def assemble(
    backbone: Sequence[Block], *, num_classes: int, projection_layers: int, classifier: nn.Module | None = None
) -> Model:
    """A model from its backbone: then projection layers (a block named "projection"), then a classifier "head".

    Args:
      backbone: blocks from the input on; the last one's pooled output is the penultimate feature.
      num_classes: width of the classifier.
      projection_layers: layers between the penultimate feature and the classifier, 0 to 5.
      classifier: in place of the linear one, with the same parameters; fed the last block's output before pooling.
    """
    if not 0 <= projection_layers <= 5:
        raise UserError(f"projection_layers={projection_layers}: a projection head has 0 to 5 layers")
    last = backbone[-1].name
    blocks = list(backbone)
    if projection_layers:
        blocks.append(Block("projection", Projection(projection_layers), identity))
    blocks.append(Block("head", classifier or Classifier(num_classes), identity))
    names = tuple(b.name for b in blocks)

    def init(key: Array, image_shape: tuple[int, int, int]) -> PyTree:
        x, variables = jnp.zeros((1, *image_shape)), {"params": {}, "batch_stats": {}}
        for i, block in enumerate(blocks):
            own = block.module.init(jax.random.fold_in(key, i), x, False, None)
            for kind, tree in own.items():
                variables[kind][block.name] = tree
            x, _ = _run(block, variables, x, False, None, None)
            x = block.pool(x) if block.name == last and classifier is None else x
        return variables

    def apply(variables, images, live=frozenset(), start=None, stop=None, key=None, mask=None):
        _check(names, [start, stop, *live])
        first = 0 if start is None else names.index(start)
        end = len(names) if stop is None else names.index(stop)
        stats, features, x = dict(variables["batch_stats"]), {}, images
        for i in range(first, end):
            block, block_key = blocks[i], None if key is None else jax.random.fold_in(key, i)
            entering = x
            x, new_stats = _run(block, variables, x, block.name in live, block_key, mask)
            if new_stats is not None:
                stats[block.name] = new_stats
            pooled = block.pool(x).astype(jnp.float32)
            if block.name == "head":
                features["embedding"] = entering if classifier is None else blocks[i - 1].pool(entering)
                features["logits"] = pooled
                detached, _ = _run(block, variables, jax.lax.stop_gradient(entering), False, None, None)
                features["detached_logits"] = detached
            else:
                features[block.name] = pooled
            if block.name == last:
                features["penultimate"] = pooled
                x = pooled if classifier is None else x
        if stop is not None:
            features["carry"] = x
        return features, {**variables, "batch_stats": stats}

    return Model(init, apply, names, last, "projection" if projection_layers else last, num_classes, classifier is None)
