"""Fine-tuning methods: what is trained, and what the classifier reads. One function a method.

Each returns a `Plan`: a model (a pair of pure functions as ever), its variables with a fresh classifier, the mask of
trainable leaves and the blocks in training mode. The same mask drives gradients, optimiser and cost report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ncjax import trees
from ncjax.models.sequential import classify, new_classifier
from ncjax.types import Array, Model, PyTree, UserError


class Plan(NamedTuple):
    """A fine-tuning method applied to a model."""

    model: Model
    variables: PyTree
    tuned: tuple[str, ...]  # blocks whose parameters are trained, "head" included
    mask: PyTree  # booleans over variables["params"]

    @property
    def live(self) -> frozenset[str]:
        """Blocks in training mode: exactly the tuned ones, so frozen statistics cannot move."""
        return frozenset(self.tuned)

    def share(self) -> tuple[int, int]:
        """(tuned, total) parameters, the new classifier included in both."""
        chosen, _ = trees.split(self.variables["params"], self.mask)
        return trees.count(chosen), trees.count(self.variables["params"])


Readout = Callable[[dict[str, Array]], Array]


def _with_readout(model: Model, num_classes: int, readout: Readout, name: str) -> Model:
    """`model` with its projection and classifier replaced by a linear classifier of `readout(features)`."""

    def apply(variables, images, live=frozenset(), start=None, stop=None, key=None, mask=None):
        inner = stop if stop not in (None, "head") else model.blocks[len(model.backbone)]
        features, variables = model.apply(variables, images, live - {"head"}, start, inner, key, mask)
        if stop is not None:
            return features, variables
        features.pop("carry")
        read = readout(features)
        features[name] = features["embedding"] = read
        features["logits"] = classify(variables["params"], read, num_classes)
        features["detached_logits"] = classify(variables["params"], jax.lax.stop_gradient(read), num_classes)
        return features, variables

    return Model(model.init, apply, (*model.backbone, "head"), model.penultimate, name, num_classes)


def _plan(model: Model, variables: PyTree, num_classes: int, key: Array, *, tuned: tuple[str, ...], width: int,
          readout: Readout, name: str | None = None) -> Plan:
    network = _with_readout(model, num_classes, readout, name or model.penultimate)
    kept = {kind: {b: tree[b] for b in model.backbone if b in tree} for kind, tree in variables.items()}
    kept["params"]["head"] = new_classifier(key, width, num_classes)
    blocks = (*tuned, "head")
    return Plan(network, kept, blocks, trees.block_mask(kept["params"], blocks))


def _penultimate(features: dict[str, Array]) -> Array:
    return features["penultimate"]


def probe(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str, dims: dict[str, int]) -> Plan:
    """Linear probe: a new classifier on the frozen penultimate feature. `layer` plays no part."""
    return _plan(model, variables, num_classes, key, tuned=(), width=dims[model.penultimate], readout=_penultimate)


def layer_ft(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str,
             dims: dict[str, int]) -> Plan:
    """Layer fine-tuning: the key layer (or every block that `layer` matches) and a classifier of the penultimate."""
    tuned = trees.match(layer, model.backbone)
    return _plan(model, variables, num_classes, key, tuned=tuned, width=dims[model.penultimate], readout=_penultimate)


def layer_ft_scaled(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str,
                    dims: dict[str, int]) -> Plan:
    """The control for SCL FT: layer FT whose classifier reads twice the penultimate feature.

    At the last block the skip doubles the penultimate feature exactly; elsewhere it also enlarges the features and so
    the effective step of the classifier. What SCL FT gains over this control is not a matter of scale.
    """
    tuned = trees.match(layer, model.backbone)
    return _plan(model, variables, num_classes, key, tuned=tuned, width=dims[model.penultimate],
                 readout=lambda features: 2.0 * features["penultimate"], name="readout")


def scl_ft(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str, dims: dict[str, int]) -> Plan:
    """Skip-connection layer fine-tuning (Li et al., 2022).

    Trains what layer FT trains; the classifier reads the penultimate feature plus the pooled output of the key layer,
    the narrower of the two padded with zeros, so that the skip adds no parameter.

    Raises:
      UserError: `layer` matches more than one block (the skip starts at one).
    """
    tuned = trees.match(layer, model.backbone)
    if len(tuned) != 1:
        raise UserError(f"scl_ft needs one key layer, but layer={layer!r} matches {', '.join(tuned)}")
    width = max(dims[tuned[0]], dims[model.penultimate])

    def readout(features: dict[str, Array]) -> Array:
        def padded(x: Array) -> Array:
            return jnp.pad(x, ((0, 0), (0, width - x.shape[1])))

        return padded(features["penultimate"]) + padded(features[tuned[0]])

    return _plan(model, variables, num_classes, key, tuned=tuned, width=width, readout=readout, name="readout")


def full_ft(model: Model, variables: PyTree, num_classes: int, key: Array, *, layer: str, dims: dict[str, int]) -> Plan:
    """Full fine-tuning: every block and a new classifier. `layer` plays no part."""
    return _plan(model, variables, num_classes, key, tuned=model.backbone, width=dims[model.penultimate],
                 readout=_penultimate)


def default_layer(model: Model) -> str:
    """The key layer when none is named: the first block of the last stage but one, "layer3.0" of a ResNet-18.

    Where block names carry no stage, the block two thirds of the way through the backbone.
    """
    stages = sorted({b.split(".")[0] for b in model.backbone if b.startswith("layer") and "." in b})
    if len(stages) >= 2:
        stage = stages[-2] if len(stages) >= 4 else stages[-1]
        return next(b for b in model.backbone if b.startswith(stage + "."))
    return model.backbone[(2 * len(model.backbone)) // 3]


def match_table(plan: Plan) -> str:
    """One line a block: tuned or frozen, and its parameters."""
    params = plan.variables["params"]
    width = max(map(len, plan.model.blocks))
    return "\n".join(f"  {name:<{width}}  {'tuned ' if name in plan.tuned else 'frozen'}  "
                     f"{trees.count(params.get(name, {})):>12,}" for name in plan.model.blocks)
