"""What a fine-tuning method comes down to: a model, its variables, the leaves that move, the blocks in training mode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.roles import METHOD, resolve
from ncjax.core.types import Array, Model, Network, PyTree
from ncjax.models.sequential import classify, new_classifier

CLASSIFIER_INITS = ("random", "probe", "group_lasso")
BATCH_NORM = ("freeze", "update", "reestimate")


class Plan(NamedTuple):
    """A fine-tuning method applied to a model."""

    model: Model
    variables: PyTree
    tuned: tuple[str, ...]  # blocks with trained leaves, "head" included
    mask: PyTree  # booleans over variables["params"]
    live: frozenset[str]  # blocks in training mode; the statistics of every other block stay bit for bit
    start: str  # the first block that is trained or read by the classifier: what is below may run once and be kept
    layer: str  # the pattern that chose the blocks; "" where it plays no part
    classifier_init: str = "random"  # how the classifier starts: "random", or solved: "probe", "group_lasso"
    factors: dict[str, float] | None = None  # learning rate by block, relative to the head's
    anchored: bool = False  # decay towards the starting point instead of towards zero (L2-SP)
    merge: Callable[[PyTree], PyTree] | None = None  # params -> params of the plain model (LoRA)

    @property
    def trains(self) -> bool:
        """Whether anything but the classifier is trained."""
        return self.tuned != ("head",)

    def share(self) -> tuple[int, int]:
        """(tuned, total) parameters, the new classifier included in both."""
        chosen, _ = trees.split(self.variables["params"], self.mask)
        return trees.count(chosen), trees.count(self.variables["params"])


def penultimate(features: dict[str, Array], head: PyTree) -> Array:
    """The readout of most methods: the last backbone block's pooled output."""
    return features["penultimate"]


@functools.lru_cache(maxsize=16)
def with_readout(
    model: Model,
    num_classes: int,
    readout: Callable[[dict[str, Array], PyTree], Array],
    name: str,
    merge: Callable[[PyTree], PyTree] | None = None,
) -> Model:
    """`model` with its projection and classifier replaced by a linear classifier of `readout(features)`."""
    end = model.blocks[len(model.backbone)]  # the first block that is not kept

    def apply(variables, images, live=frozenset(), start=None, stop=None, key=None, mask=None):
        plain = variables if merge is None else {**variables, "params": merge(variables["params"])}
        if start == "head":  # only the classifier runs: what enters is the penultimate feature
            features, moved = {model.penultimate: images, "penultimate": images, "carry": images}, variables
        else:
            features, moved = model.apply(
                plain, images, live - {"head"}, start, end if stop in (None, "head") else stop, key, mask
            )
        variables = {**variables, "batch_stats": moved["batch_stats"]}
        if stop is not None:
            return (features | {"carry": features["penultimate"]} if stop == "head" else features), variables
        features.pop("carry")
        head = variables["params"]["head"]
        read = readout(features, head)
        features[name] = features["embedding"] = read
        features["logits"] = classify(variables["params"], read, num_classes)
        features["detached_logits"] = classify(variables["params"], jax.lax.stop_gradient(read), num_classes)
        return features, variables

    return Model(model.init, apply, (*model.backbone, "head"), model.penultimate, name, num_classes)


class Target(NamedTuple):
    """What a network is tuned for."""

    num_classes: int
    key: Array  # draws the new classifier
    layer: str | None = None  # a pattern of blocks; None for the method's own choice


def plan_of(method: str, network: Network, target: Target) -> Plan:
    """A fine-tuning method, by name, applied to a network; works on shapes as on arrays.

    Raises:
      UserError: no such method, a setting that it cannot take, or a pattern that matches no block.
    """
    plan = resolve(method, METHOD)(network=network, target=target)
    if not isinstance(plan, Plan):
        raise UserError(f"method={method}: returned {type(plan).__name__}, expected ncjax.tuning.plans.Plan")
    return plan


class Reads(NamedTuple):
    """What the new classifier reads, where that is not the penultimate feature alone."""

    readout: Callable[[dict[str, Array], PyTree], Array]  # (features, head parameters) -> [N, width]
    width: int
    first: str = "head"  # the first block whose output it takes beside the tuned ones
    extra: PyTree | None = None  # parameters of the head beside the linear map


def make(
    network: Network,
    target: Target,
    *,
    tuned: tuple[str, ...],
    layer: str = "",
    reads: Reads | None = None,
    leaf: Callable[[str], bool] | None = None,
    live: Sequence[str] | None = None,
    merge: Callable[[PyTree], PyTree] | None = None,
    classifier_init: str = "random",
) -> Plan:
    """A plan: `tuned` backbone blocks and a fresh classifier.

    Args:
      network, target: what is tuned, for what.
      tuned: backbone blocks with trained leaves.
      layer: the pattern that chose the blocks.
      reads: what the classifier reads; None for the penultimate feature.
      leaf: which leaves of the tuned blocks are trained, by slash-joined path; None for all.
      live: blocks in training mode; None for the tuned ones.
      merge: turns trained parameters into those of the network's model.
      classifier_init: one of `CLASSIFIER_INITS`.

    Raises:
      UserError: `leaf` chooses nothing in any block.
    """
    model, variables = network.model, network.variables
    name = model.penultimate if reads is None else "readout"
    reads = reads or Reads(penultimate, network.widths()[model.penultimate])
    own = with_readout(model, target.num_classes, reads.readout, name, merge)
    kept = trees.only(variables, model.backbone)
    kept["params"]["head"] = {**new_classifier(target.key, reads.width, target.num_classes), **(reads.extra or {})}
    mask = trees.block_mask(kept["params"], (*tuned, "head"))
    if leaf is not None:
        chosen = trees.paths(kept["params"])
        picked = [
            path.startswith("head/") or (moves and leaf(path))
            for path, moves in zip(chosen, jax.tree.leaves(mask), strict=True)
        ]
        mask = jax.tree.unflatten(jax.tree.structure(mask), picked)
    tuned = (*(b for b in model.backbone if any(jax.tree.leaves(mask.get(b, {})))), "head")
    if leaf is not None and tuned == ("head",):
        raise UserError(f"layer={layer!r} matches no block with parameters that this method tunes")
    order = [*model.backbone, "head"]
    start = min((tuned[0], reads.first), key=order.index)
    return Plan(
        model=own,
        variables=kept,
        tuned=tuned,
        mask=mask,
        live=frozenset(tuned if live is None else live),
        start=start,
        layer=layer,
        merge=merge,
        classifier_init=classifier_init,
    )


def everything(model: Model, variables: PyTree) -> Plan:
    """Training from scratch: every block of the model as it is, its own classifier included."""
    return Plan(
        model,
        variables,
        model.blocks,
        trees.block_mask(variables["params"], model.blocks),
        frozenset(model.blocks),
        model.blocks[0],
        "",
    )


def frozen_paths(plan: Plan, statistics: bool = True) -> frozenset[str]:
    """Slash-joined paths, below a training state, of what training leaves bit for bit as it was in the base.

    Args:
      plan: a fine-tuning method's.
      statistics: whether the statistics of frozen blocks are the base's (not where they were re-estimated).
    """
    frozen = {f"params/{p}" for p, moves in trees.paths(plan.mask).items() if not moves}
    if statistics:
        frozen |= {
            f"batch_stats/{p}" for p in trees.paths(plan.variables["batch_stats"]) if p.partition("/")[0] not in plan.live
        }
    return frozenset(f"variables/{p}" for p in frozen)


def with_batch_norm(plan: Plan, policy: str) -> Plan:
    """The plan under a policy for the BatchNorm statistics of blocks that are not in training mode.

    Args:
      plan: a method's.
      policy: "freeze": they stay bit for bit; "update": every block normalises by its batch and moves its statistics,
        so nothing can be computed once; "reestimate": as "freeze", once `features.passes.reestimate` has replaced them.

    Raises:
      UserError: no such policy.
    """
    if policy not in BATCH_NORM:
        raise UserError(f"batch_norm={policy!r}: one of {', '.join(BATCH_NORM)}")
    return plan._replace(live=frozenset(plan.model.blocks), start=plan.model.blocks[0]) if policy == "update" else plan


def default_layer(model: Model) -> str:
    """The key layer when none is named: "layer3.0" of a ResNet, the first block of its third stage.

    That is the last stage but one of an ImageNet ResNet, the last of a CIFAR one. Where block names carry no stage, the
    block two thirds of the way through the backbone.
    """
    stages = sorted({b.split(".")[0] for b in model.backbone if b.startswith("layer") and "." in b})
    if len(stages) >= 2:
        stage = stages[-2] if len(stages) >= 4 else stages[-1]
        return next(b for b in model.backbone if b.startswith(stage + "."))
    return model.backbone[(2 * len(model.backbone)) // 3]


def stage(model: Model, block: str) -> tuple[str, ...]:
    """The blocks of the stage that holds `block`: those of one resolution, or a quarter of a network without stages."""
    prefix, dot, _ = block.partition(".")
    group = tuple(b for b in model.backbone if b.startswith(prefix + dot)) if dot else (block,)
    if len({b.partition(".")[0] for b in model.backbone if "." in b}) > 1 or len(group) == 1:
        return group
    size = -(-len(group) // 4)
    first = group.index(block) // size * size
    return group[first : first + size]


def match_table(plan: Plan) -> str:
    """One line a block: what is tuned of it, and whether its BatchNorm statistics move."""
    width = max(map(len, plan.model.blocks))
    lines = []
    for name in plan.model.blocks:
        params, mask = (tree.get(name, {}) for tree in (plan.variables["params"], plan.mask))
        moving, total = trees.count(trees.split(params, mask)[0]), trees.count(params)
        state = "frozen" if not moving else "tuned" if moving == total else "partly"
        moves = ", statistics move" if name in plan.live and name in plan.variables["batch_stats"] else ""
        lines.append(f"  {name:<{width}}  {state}  {moving:>12,} of {total:>12,}{moves}")
    return "\n".join(lines)
