"""Fine-tuning methods, one public function each: what is trained, and what the classifier reads.

Each takes `(model, variables, num_classes, key, *, layer, dims)`: a trained model, the target's classes, a key for the
fresh classifier, a pattern of blocks (None for the method's own choice) and every block's feature width. It returns a
`plans.Plan`, whose one mask drives gradients, optimiser and cost report. Settings are written in the name:
`tuning.last_k(k=3)`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.types import Array, Model, PyTree
from ncjax.tuning import plans
from ncjax.tuning.plans import Plan

Dims = dict[str, int]


def probe(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims) -> Plan:
    """Linear probe: a classifier on the frozen penultimate feature, solved by L-BFGS. `layer` plays no part."""
    return plans.make(model, variables, num_classes, key, tuned=(), width=dims[model.penultimate], head="probe")


def layer_ft(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims) -> Plan:
    """Layer fine-tuning: the key layer (or every block that `layer` matches) and a classifier of the penultimate."""
    layer = layer or plans.default_layer(model)
    return plans.make(model, variables, num_classes, key, tuned=trees.match(layer, model.backbone), layer=layer,
                      width=dims[model.penultimate])


def layer_ft_scaled(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None,
                    dims: Dims) -> Plan:
    """The control for SCL FT: layer FT whose classifier reads twice the penultimate feature.

    At the last block the skip doubles the penultimate feature exactly; elsewhere it also enlarges the features and so
    the effective step of the classifier. What SCL FT gains over this control is not a matter of scale.
    """
    layer = layer or plans.default_layer(model)
    return plans.make(model, variables, num_classes, key, tuned=trees.match(layer, model.backbone), layer=layer,
                      width=dims[model.penultimate], readout=lambda features, _: 2.0 * features["penultimate"],
                      name="readout")


def scl_ft(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims,
           skip: str = "pad") -> Plan:
    """Skip-connection layer fine-tuning (Li et al., 2022).

    Trains what layer FT trains; the classifier reads the penultimate feature plus the pooled output of the key layer,
    the narrower of the two padded with zeros, so that the skip adds no parameter.

    Args:
      skip: "pad", the paper's. Ablations that are not: "concat" (the classifier reads both side by side, K D_layer
        parameters more) and "linear" (a learned map of the key layer's output, from zero, D_layer D more).

    Raises:
      UserError: `layer` matches more than one block (the skip starts at one), or another `skip`.
    """
    layer = layer or plans.default_layer(model)
    tuned = trees.match(layer, model.backbone)
    if len(tuned) != 1:
        raise UserError(f"scl_ft needs one key layer, but layer={layer!r} matches {', '.join(tuned)}")
    inner, outer = dims[tuned[0]], dims[model.penultimate]

    def padded(features: dict[str, Array], _: PyTree) -> Array:
        width = max(inner, outer)
        first, second = (jnp.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (
            features["penultimate"], features[tuned[0]]))
        return first + second

    def side_by_side(features: dict[str, Array], _: PyTree) -> Array:
        return jnp.concatenate([features["penultimate"], features[tuned[0]]], axis=1)

    def mapped(features: dict[str, Array], head: PyTree) -> Array:
        return features["penultimate"] + jnp.matmul(features[tuned[0]], head["skip"]["kernel"])

    kinds = {"pad": (padded, max(inner, outer), None), "concat": (side_by_side, inner + outer, None),
             "linear": (mapped, outer, {"skip": {"kernel": jnp.zeros((inner, outer))}})}
    if skip not in kinds:
        raise UserError(f"skip={skip!r}: 'pad' (the paper's), or the ablations 'concat' and 'linear'")
    readout, width, extra = kinds[skip]
    return plans.make(model, variables, num_classes, key, tuned=tuned, width=width, layer=layer, readout=readout,
                      name="readout", extra=extra)


def full_ft(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims) -> Plan:
    """Full fine-tuning: every block and a new classifier. `layer` plays no part."""
    return plans.make(model, variables, num_classes, key, tuned=model.backbone, width=dims[model.penultimate])


def lp_ft(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims) -> Plan:
    """LP-FT (Kumar et al., 2022): full fine-tuning whose classifier starts as the linear probe."""
    return full_ft(model, variables, num_classes, key, layer=layer, dims=dims)._replace(head="probe")


def surgical(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims) -> Plan:
    """Surgical fine-tuning (Lee et al., 2023): the whole stage that holds the key layer, and a classifier."""
    layer = layer or plans.default_layer(model)
    stages = {plans.stage(model, block) for block in trees.match(layer, model.backbone)}
    if len(stages) != 1:
        raise UserError(f"surgical tunes one stage, but layer={layer!r} reaches {len(stages)}")
    tuned = stages.pop()
    return plans.make(model, variables, num_classes, key, tuned=tuned, width=dims[model.penultimate], layer=layer)


def last_k(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims,
           k: int = 2) -> Plan:
    """The last `k` blocks and a classifier. `layer` plays no part."""
    if not isinstance(k, int) or not 1 <= k <= len(model.backbone):
        raise UserError(f"last_k(k={k}): the network has {len(model.backbone)} blocks, so k is 1 to that")
    return plans.make(model, variables, num_classes, key, tuned=model.backbone[-k:], width=dims[model.penultimate])


def bitfit(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims) -> Plan:
    """BitFit (Ben Zaken et al., 2022): every bias of the matched blocks (default all), those of BatchNorm included.

    Statistics of BatchNorm stay frozen.
    """
    layer = layer or "*"
    return plans.make(model, variables, num_classes, key, tuned=trees.match(layer, model.backbone), layer=layer, live=(),
                      width=dims[model.penultimate], leaf=lambda path: path.endswith("/bias"))


def norm_only(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims) -> Plan:
    """Scales and biases of the matched blocks' BatchNorm and LayerNorm (default all), their statistics moving too."""
    layer = layer or "*"
    norms = {path.rpartition("/")[0] for path in trees.paths(variables["params"]) if path.endswith("/scale")}
    return plans.make(model, variables, num_classes, key, tuned=trees.match(layer, model.backbone), layer=layer,
                      width=dims[model.penultimate], leaf=lambda path: path.rpartition("/")[0] in norms)


def lora(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims, rank: int = 4,
         alpha: float = 8.0) -> Plan:
    """LoRA (Hu et al., 2022) on every kernel of the matched blocks (default all), convolutions too.

    A kernel W of shape [..., I, O] becomes W + alpha/rank A B, with A [... I, rank] (its spatial and input axes together;
    an attention head's kernel [I, heads, O] counts as I by heads O) Gaussian and B [rank, O] zero, so tuning starts at
    the model itself. Weights are merged in each step: no cost at inference, but the step still forms W's whole gradient.
    BatchNorm, statistics included, is frozen.
    """
    layer = layer or "*"
    if rank < 1:
        raise UserError(f"lora(rank={rank}): at least 1")
    tuned = trees.match(layer, model.backbone)
    draws = iter(range(1, 1 << 30))

    def grown(tree: PyTree, name: str) -> PyTree:
        tree = {key: grown(x, key) if isinstance(x, dict) else x for key, x in tree.items()}
        shape = tree["kernel"].shape if "kernel" in tree else ()
        if len(shape) >= 2:
            rows, _ = trees.matrix_shape(name, shape)
            own = jax.random.fold_in(key, next(draws))
            tree["lora_a"] = jax.random.normal(own, (rows, rank)) / math.sqrt(rows)
            tree["lora_b"] = jnp.zeros((rank, math.prod(shape) // rows))
        return tree

    def merge(tree: PyTree) -> PyTree:
        if "lora_a" in tree:
            delta = jnp.matmul(tree["lora_a"], tree["lora_b"], precision="highest") * (alpha / rank)
            tree = {**tree, "kernel": tree["kernel"] + delta.reshape(tree["kernel"].shape)}
        return {name: merge(x) if isinstance(x, dict) else x for name, x in tree.items() if not name.startswith("lora_")}

    params = {name: grown(x, name) if name in tuned else x for name, x in variables["params"].items()}
    return plans.make(model, {**variables, "params": params}, num_classes, key, tuned=tuned, layer=layer, live=(),
                      width=dims[model.penultimate], leaf=lambda path: "/lora_" in path, merge=merge)


def head2toe(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims) -> Plan:
    """Head2Toe (Evci et al., 2022), on pooled features: a classifier of the outputs of every matched block (default all).

    Features are chosen by group lasso, how many on validation; the rest have zero weights.
    """
    layer = layer or "*"
    blocks = trees.match(layer, model.backbone)

    def readout(features: dict[str, Array], _: PyTree) -> Array:
        return jnp.concatenate([features[b] for b in blocks], axis=1)

    return plans.make(model, variables, num_classes, key, tuned=(), width=sum(dims[b] for b in blocks), layer=layer,
                      readout=readout, name="readout", reads=blocks[0], head="group_lasso")


def llrd(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims,
         factor: float = 0.85) -> Plan:
    """Full fine-tuning with layer-wise learning-rate decay: `factor` more for each block further from the classifier."""
    if not 0 < factor <= 1:
        raise UserError(f"llrd(factor={factor}): in (0, 1]")
    plan = full_ft(model, variables, num_classes, key, layer=layer, dims=dims)
    return plan._replace(factors={block: factor**i for i, block in enumerate(reversed(plan.model.blocks))})


def l2_sp(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str | None, dims: Dims) -> Plan:
    """L2-SP (Li et al., 2018): full fine-tuning whose weight decay pulls to the start, the classifier's to zero."""
    return full_ft(model, variables, num_classes, key, layer=layer, dims=dims)._replace(anchored=True)
