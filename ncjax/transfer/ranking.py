"""Which block to tune: scores of every block from one pass forward and one backward, and the rules that choose by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncjax.core import mesh as meshes
from ncjax.core import trees
from ncjax.core.errors import UserError, nearest
from ncjax.core.types import Model, Network, PyTree
from ncjax.data import Dataset, batches_of
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.scores.score import Score, applied, complete
from ncjax.transfer import probe, solved
from ncjax.tuning import methods, plans
from ncjax.tuning.plans import Plan, Target

Values = dict[str, dict[str, float | None]]  # {block: {score: value}}
Rule = Callable[[Values, Model], str]
TUNNEL_SHARE = 0.95
BLOCK_SCORES = [
    "scores.nc1_over_floor",
    "scores.nc1",
    "scores.cdnv",
    "scores.probe_accuracy",
    "scores.logme",
    "scores.relative_gradient_norm",
    "scores.condition_number",
]


def candidates(model: Model, pattern: str | None) -> tuple[str, ...]:
    """The blocks to choose among: those the pattern matches; None for residual and encoder blocks, or else all."""
    if pattern:
        return trees.match(pattern, model.backbone)
    numbered = tuple(b for b in model.backbone if "." in b)
    return numbered or model.backbone


def _gradient(plan: Plan, dataset: Dataset, mesh: Mesh, batch_size: int) -> PyTree:
    """Gradient of the mean training loss with respect to every block, in evaluation mode."""
    batches = batches_of(dataset.splits["train"], dataset, mesh, batch_size=batch_size)

    def loss(params: PyTree, batch: Any) -> jax.Array:
        found, _ = plan.model.apply({**plan.variables, "params": params}, batch.image)
        return cross_entropy().value(found, batch.label, batch.mask) * batch.mask.sum() / batches.size

    step = meshes.compile_step(
        lambda total, params, batch: jax.tree.map(jnp.add, total, jax.grad(loss)(params, batch)), mesh
    )
    total = jax.tree.map(np.zeros_like, plan.variables["params"])
    for batch in passes.evaluation_batches(batches):
        total = step(total, plan.variables["params"], batch)
    return total


def scores(
    network: Network, dataset: Dataset, mesh: Mesh, blocks: Sequence[str], wanted: dict[str, Score], *, batch_size: int
) -> tuple[Values, dict[str, str]]:
    """Every score of every block, and by score why some block has none.

    Args:
      network, dataset, mesh: what to score, for what, where.
      blocks: which blocks.
      wanted: the scores, see `ncjax.scores.score`.
      batch_size: images a step.
    """
    classes, model, variables = len(dataset.class_names), network.model, network.variables
    plan = methods.probe(network, Target(classes, jax.random.key(0)))
    layers = list(dict.fromkeys([*blocks, model.penultimate]))
    dims = network.fed(dataset).widths()
    run_pass = passes.make_pass(plan.model, cross_entropy(), dims, mesh, stats=layers, keep=layers)
    seen = {
        name: run_pass(plan.variables, batches_of(dataset.splits[name], dataset, mesh, batch_size=batch_size))
        for name in ("train", "val")
    }
    train, val = seen["train"], seen["val"]
    reports = passes.collapse(train, train)
    fitted = {b: probe.fit((train.features[b], train.labels), (val.features[b], val.labels), classes) for b in layers}
    plan = solved.with_classifier(plan, fitted[model.penultimate])
    gradient, out, reasons = _gradient(plan, dataset, mesh, batch_size), {}, {}
    for b in blocks:
        params = variables["params"][b]
        inputs = {
            "features": train.features[b],
            "labels": train.labels,
            "num_classes": classes,
            "val_features": val.features[b],
            "val_labels": val.labels,
            "report": reports[b],
            "train_accuracy": fitted[b].train_accuracy,
            "val_accuracy": fitted[b].val_accuracy,
            "gradient": jax.tree.leaves(gradient[b]),
            "params": jax.tree.leaves(params),
            "kernels": [
                np.reshape(x, trees.matrix_shape(path.split("/")[-2], np.shape(x)))
                for path, x in trees.paths({b: params}).items()
                if path.endswith("/kernel") and np.ndim(x) >= 2
            ],
            "width": dims[b],
        }
        out[b], why = applied(wanted, inputs)
        reasons |= {name: f"{b}: {reason}" for name, reason in why.items()}
    return complete(wanted, out), reasons


def tunnel_start(accuracies: Sequence[float], share: float = TUNNEL_SHARE) -> int:
    """Index of the first block whose probe reaches `share` of the last one's accuracy (Masarczyk et al., 2023)."""
    return next(i for i, x in enumerate(accuracies) if x >= share * accuracies[-1])


def _tunnel(found: Values, model: Model) -> str:
    return list(found)[tunnel_start([x["probe_accuracy"] or 0.0 for x in found.values()])]


def _key_layer(found: Values, model: Model) -> str:
    """The default key layer, or the candidate nearest to it from above."""
    order = model.backbone
    wanted = order.index(plans.default_layer(model))
    return min(found, key=lambda b: (abs(order.index(b) - wanted), -order.index(b)))


# Rules that go by a block's place: each chooses a block; ties go to the block nearer the input.
PLACES: dict[str, tuple[Rule, str]] = {
    "tunnel_start": (_tunnel, "first whose probe reaches 95 % of the last's"),
    "first": (lambda found, _: next(iter(found)), "the first block"),
    "middle": (lambda found, _: list(found)[len(found) // 2], "the middle one"),
    "key_layer": (_key_layer, "the paper's, layer3.0 of a ResNet"),
    "last": (lambda found, _: list(found)[-1], "the last block"),
}


def rules(wanted: dict[str, Score]) -> dict[str, tuple[Rule, str]]:
    """{rule: (what chooses, its meaning)}: the best block by each score, and by place.

    The tunnel's start is offered only where the probe's accuracy is among the scores.
    """

    def best(score: Score) -> Rule:
        return lambda found, _: max(found, key=lambda b: score.better(found[b][score.name]))

    by_score: dict[str, tuple[Rule, str]] = {
        s.name: (best(s), f"{'largest' if s.higher_is_better else 'smallest'} {s.label}") for s in wanted.values()
    }
    places = {name: rule for name, rule in PLACES.items() if name != "tunnel_start" or "probe_accuracy" in wanted}
    return by_score | places


def without_value(found: Sequence[Values], wanted: dict[str, Score]) -> set[str]:
    """Scores that no block has, on some seed: their rules cannot choose."""
    return {name for name in wanted if any(all(x[name] is None for x in values.values()) for values in found)}


def choose(rule: str, found: Values, model: Model, wanted: dict[str, Score]) -> str:
    """The block that a rule chooses.

    Raises:
      UserError: no such rule.
    """
    known = rules(wanted)
    if rule not in known:
        raise UserError(f"rule={rule!r}: {nearest(rule, known)}")
    return known[rule][0](found, model)


def ordered(rule: str, found: Values, model: Model, wanted: dict[str, Score]) -> list[str]:
    """The blocks from a rule's first choice on: what it would choose if those before were not there."""
    left, out = dict(found), []
    while left:
        out.append(choose(rule, left, model, wanted))
        del left[out[-1]]
    return out
