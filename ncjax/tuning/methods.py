"""Fine-tuning methods, one public function each: what is trained, and what the classifier reads.

Each takes `(network, target)`: a trained `Network`, and the target's classes, a key for the fresh classifier and a pattern
of blocks (`plans.Target`). It returns a `plans.Plan`, whose one mask drives gradients, optimiser and cost report. Settings
are written in the name: `tuning.last_k(k=3)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.types import Array, Network, PyTree
from ncjax.core.values import COUNT, POSITIVE, POSITIVE_SHARE, OneOf
from ncjax.tuning import plans
from ncjax.tuning.plans import Plan, Reads, Target


def probe(network: Network, target: Target) -> Plan:
    """Linear probe: a classifier on the frozen penultimate feature, solved by L-BFGS. `layer` plays no part."""
    return plans.make(network, target, tuned=(), classifier_init="probe")


def layer_ft(network: Network, target: Target) -> Plan:
    """Layer fine-tuning: the key layer (or every block that `layer` matches) and a classifier of the penultimate."""
    layer = target.layer or plans.default_layer(network.model)
    return plans.make(network, target, tuned=trees.match(layer, network.model.backbone), layer=layer)


def layer_ft_scaled(network: Network, target: Target) -> Plan:
    """The control for SCL FT: layer FT whose classifier reads twice the penultimate feature.

    At the last block the skip doubles the penultimate feature exactly; elsewhere it also enlarges the features and so
    the effective step of the classifier. What SCL FT gains over this control is not a matter of scale.
    """
    layer = target.layer or plans.default_layer(network.model)
    return plans.make(
        network,
        target,
        tuned=trees.match(layer, network.model.backbone),
        layer=layer,
        reads=Reads(lambda features, _: 2.0 * features["penultimate"], network.widths()[network.model.penultimate]),
    )


def scl_ft(network: Network, target: Target, *, skip: Annotated[str, OneOf("pad", "concat", "linear")] = "pad") -> Plan:
    """Skip-connection layer fine-tuning (Li et al., 2022).

    Trains what layer FT trains; the classifier reads the penultimate feature plus the pooled output of the key layer,
    the narrower of the two padded with zeros, so that the skip adds no parameter.

    Args:
      skip: "pad", the paper's. Ablations that are not: "concat" (the classifier reads both side by side, K D_layer
        parameters more) and "linear" (a learned map of the key layer's output, from zero, D_layer D more).

    Raises:
      UserError: `layer` matches more than one block (the skip starts at one), or another `skip`.
    """
    layer = target.layer or plans.default_layer(network.model)
    tuned = trees.match(layer, network.model.backbone)
    if len(tuned) != 1:
        raise UserError(f"scl_ft needs one key layer, but layer={layer!r} matches {', '.join(tuned)}")
    widths = network.widths()
    inner, outer = widths[tuned[0]], widths[network.model.penultimate]

    def padded(features: dict[str, Array], _: PyTree) -> Array:
        width = max(inner, outer)
        first, second = (
            jnp.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (features["penultimate"], features[tuned[0]])
        )
        return first + second

    def side_by_side(features: dict[str, Array], _: PyTree) -> Array:
        return jnp.concatenate([features["penultimate"], features[tuned[0]]], axis=1)

    def mapped(features: dict[str, Array], head: PyTree) -> Array:
        return features["penultimate"] + jnp.matmul(features[tuned[0]], head["skip"]["kernel"])

    kinds = {
        "pad": Reads(padded, max(inner, outer)),
        "concat": Reads(side_by_side, inner + outer),
        "linear": Reads(mapped, outer, extra={"skip": {"kernel": jnp.zeros((inner, outer))}}),
    }
    if skip not in kinds:
        raise UserError(f"skip={skip!r}: 'pad' (the paper's), or the ablations 'concat' and 'linear'")
    return plans.make(network, target, tuned=tuned, layer=layer, reads=kinds[skip])


def full_ft(network: Network, target: Target) -> Plan:
    """Full fine-tuning: every block and a new classifier. `layer` plays no part."""
    return plans.make(network, target, tuned=network.model.backbone)


def lp_ft(network: Network, target: Target) -> Plan:
    """LP-FT (Kumar et al., 2022): full fine-tuning whose classifier starts as the linear probe."""
    return full_ft(network, target)._replace(classifier_init="probe")


def surgical(network: Network, target: Target) -> Plan:
    """Surgical fine-tuning (Lee et al., 2023): the whole stage that holds the key layer, and a classifier."""
    layer = target.layer or plans.default_layer(network.model)
    stages = {plans.stage(network.model, block) for block in trees.match(layer, network.model.backbone)}
    if len(stages) != 1:
        raise UserError(f"surgical tunes one stage, but layer={layer!r} reaches {len(stages)}")
    tuned = stages.pop()
    return plans.make(network, target, tuned=tuned, layer=layer)


def last_k(network: Network, target: Target, *, k: Annotated[int, COUNT] = 2) -> Plan:
    """The last `k` blocks and a classifier. `layer` plays no part."""
    if not isinstance(k, int) or not 1 <= k <= len(network.model.backbone):
        raise UserError(f"last_k(k={k}): the network has {len(network.model.backbone)} blocks, so k is 1 to that")
    return plans.make(network, target, tuned=network.model.backbone[-k:])


def bitfit(network: Network, target: Target) -> Plan:
    """BitFit (Ben Zaken et al., 2022): every bias of the matched blocks (default all), those of BatchNorm included.

    Statistics of BatchNorm stay frozen.
    """
    layer = target.layer or "*"
    return plans.make(
        network,
        target,
        tuned=trees.match(layer, network.model.backbone),
        layer=layer,
        live=(),
        leaf=lambda path: path.endswith("/bias"),
    )


def norm_only(network: Network, target: Target) -> Plan:
    """Scales and biases of the matched blocks' BatchNorm and LayerNorm (default all), their statistics moving too."""
    layer = target.layer or "*"
    norms = {path.rpartition("/")[0] for path in trees.paths(network.variables["params"]) if path.endswith("/scale")}
    return plans.make(
        network,
        target,
        tuned=trees.match(layer, network.model.backbone),
        layer=layer,
        leaf=lambda path: path.rpartition("/")[0] in norms,
    )


def lora(
    network: Network, target: Target, *, rank: Annotated[int, COUNT] = 4, alpha: Annotated[float, POSITIVE] = 8.0
) -> Plan:
    """LoRA (Hu et al., 2022) on every kernel of the matched blocks (default all), convolutions too.

    A kernel W of shape [..., I, O] becomes W + alpha/rank A B, with A [... I, rank] (its spatial and input axes together;
    an attention head's kernel [I, heads, O] counts as I by heads O) Gaussian and B [rank, O] zero, so tuning starts at
    the model itself. Weights are merged in each step: no cost at inference, but the step still forms W's whole gradient.
    BatchNorm, statistics included, is frozen.
    """

    def start(kernel: Array, key: Array) -> dict[str, Array]:
        rows, columns = kernel.shape
        return {"lora_a": jax.random.normal(key, (rows, rank)) / math.sqrt(rows), "lora_b": jnp.zeros((rank, columns))}

    def change(tree: PyTree) -> Array:
        return jnp.matmul(tree["lora_a"], tree["lora_b"], precision="highest") * (alpha / rank)

    return _adapted(network, target, "lora", rank, start, change)


def spectral(
    network: Network, target: Target, *, rank: Annotated[int, COUNT] = 4, outer: Annotated[float, POSITIVE] = 5.0
) -> Plan:
    """A compressed deep factorisation (Kwon et al., 2024) beside every kernel of the matched blocks (default all).

    A kernel W becomes W + A C B as in `lora`, with A [rows, rank] and B [rank, columns] at W's leading singular vectors and
    C [rank, rank] zero: three factors, begun in the few directions that gradient descent on deep factorisations moves,
    the outer two at `outer` times the learning rate. Where theirs begins, at e times the identity, C is zero here, so
    that tuning starts at the model itself; and their surrogate of what is to be fitted, which for a tuned
    kernel nobody knows, is the kernel. Both choices are ours. rank^2 numbers a kernel more than `lora` of that rank.

    Args:
      rank: of the change; at most the kernel's.
      outer: learning rate of A and B over that of C, for gradient descent with or without momentum: the leaves trained are
        A / sqrt(outer) and B / sqrt(outer). Weight decay shrinks all three alike; with clipping or Adam it holds no longer.
    """

    def start(kernel: Array, key: Array) -> dict[str, Array]:
        u, _, v = jnp.linalg.svd(kernel, full_matrices=False)
        kept = min(rank, *kernel.shape)
        a, b = (x / math.sqrt(outer) for x in (u[:, :kept], v[:kept]))
        return {"spectral_a": a, "spectral_b": b, "spectral_c": jnp.zeros((kept, kept))}

    def change(tree: PyTree) -> Array:
        middle = jnp.matmul(tree["spectral_c"], tree["spectral_b"], precision="highest")
        return jnp.matmul(tree["spectral_a"], middle, precision="highest") * outer

    return _adapted(network, target, "spectral", rank, start, change)


def _adapted(
    network: Network,
    target: Target,
    name: str,
    rank: int,
    start: Callable[[Array, Array], dict[str, Array]],
    change: Callable[[PyTree], Array],
) -> Plan:
    """Kernels of the matched blocks plus a change of low rank, whose factors alone are trained.

    Args:
      network, target: what is tuned, for what.
      name: of the method; its leaves' names begin with it and an underscore.
      rank: of the change.
      start: (kernel as a matrix [rows, columns], key) -> the factors beside it.
      change: of a block of parameters that holds them -> [rows, columns].

    Raises:
      UserError: a rank below 1.
    """
    layer, mark = target.layer or "*", name + "_"
    if rank < 1:
        raise UserError(f"{name}(rank={rank}): at least 1")
    tuned = trees.match(layer, network.model.backbone)
    draws = iter(range(1, 1 << 30))

    def grown(tree: PyTree, name: str) -> PyTree:
        tree = {key: grown(x, key) if isinstance(x, dict) else x for key, x in tree.items()}
        shape = tree["kernel"].shape if "kernel" in tree else ()
        if len(shape) >= 2:
            rows, _ = trees.matrix_shape(name, shape)
            matrix, key = (rows, math.prod(shape) // rows), jax.random.fold_in(target.key, next(draws))
            if isinstance(tree["kernel"], jax.ShapeDtypeStruct):  # shapes are asked for, of a network that is not there
                tree |= jax.eval_shape(start, jax.ShapeDtypeStruct(matrix, tree["kernel"].dtype), key)
            else:
                tree |= start(jnp.reshape(tree["kernel"], matrix), key)
        return tree

    def merge(tree: PyTree) -> PyTree:
        if any(key.startswith(mark) for key in tree):
            tree = {**tree, "kernel": tree["kernel"] + change(tree).reshape(tree["kernel"].shape)}
        return {key: merge(x) if isinstance(x, dict) else x for key, x in tree.items() if not key.startswith(mark)}

    params = {name: grown(x, name) if name in tuned else x for name, x in network.variables["params"].items()}
    return plans.make(
        network._replace(variables={**network.variables, "params": params}),
        target,
        tuned=tuned,
        layer=layer,
        live=(),
        leaf=lambda path: f"/{mark}" in path,
        merge=merge,
    )


def head2toe(network: Network, target: Target) -> Plan:
    """Head2Toe (Evci et al., 2022), on pooled features: a classifier of the outputs of every matched block (default all).

    Features are chosen by group lasso, how many on validation; the rest have zero weights.
    """
    layer = target.layer or "*"
    blocks = trees.match(layer, network.model.backbone)

    def readout(features: dict[str, Array], _: PyTree) -> Array:
        return jnp.concatenate([features[b] for b in blocks], axis=1)

    widths = network.widths()
    return plans.make(
        network,
        target,
        tuned=(),
        layer=layer,
        classifier_init="group_lasso",
        reads=Reads(readout, sum(widths[b] for b in blocks), first=blocks[0]),
    )


def llrd(network: Network, target: Target, *, factor: Annotated[float, POSITIVE_SHARE] = 0.85) -> Plan:
    """Full fine-tuning with layer-wise learning-rate decay: `factor` more for each block further from the classifier."""
    if not 0 < factor <= 1:
        raise UserError(f"llrd(factor={factor}): in (0, 1]")
    plan = full_ft(network, target)
    return plan._replace(factors={block: factor**i for i, block in enumerate(reversed(plan.model.blocks))})


def l2_sp(network: Network, target: Target) -> Plan:
    """L2-SP (Li et al., 2018): full fine-tuning whose weight decay pulls to the start, the classifier's to zero."""
    return full_ft(network, target)._replace(anchored=True)
