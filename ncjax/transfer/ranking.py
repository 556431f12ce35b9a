"""Which block to tune: scores of every block from one pass forward and one backward, and the rules that choose by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ncjax.core import mesh, trees
from ncjax.core.errors import UserError, nearest
from ncjax.core.types import Model, PyTree
from ncjax.data import Dataset, source
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.scores import scores as score
from ncjax.transfer import probe, solved
from ncjax.tuning import methods, plans

Scores = dict[str, dict[str, float]]  # {block: {score: value}}


def candidates(model: Model, pattern: str | None) -> tuple[str, ...]:
    """The blocks to choose among: those the pattern matches; None for residual and encoder blocks, or else all."""
    if pattern:
        return trees.match(pattern, model.backbone)
    numbered = tuple(b for b in model.backbone if "." in b)
    return numbered or model.backbone


def _gradient(plan: plans.Plan, dataset: Dataset, devices: Any, batch_size: int) -> PyTree:
    """Gradient of the mean training loss with respect to every block, in evaluation mode."""
    batches = source(dataset.splits["train"], dataset, devices, batch_size=batch_size)

    def loss(params: PyTree, batch: Any) -> jax.Array:
        found, _ = plan.model.apply({**plan.variables, "params": params}, batch.image)
        return cross_entropy().value(found, batch.label, batch.mask) * batch.mask.sum() / batches.size

    step = mesh.compile_step(lambda total, params, batch: jax.tree.map(jax.numpy.add, total, jax.grad(loss)(params, batch)),
                             devices)
    total = jax.tree.map(np.zeros_like, plan.variables["params"])
    for batch in passes.batches(batches):
        total = step(total, plan.variables["params"], batch)
    return total


def scores(model: Model, variables: PyTree, dataset: Dataset, devices: Any, blocks: Sequence[str], *,
           batch_size: int) -> Scores:
    """Every block's NC1 over its floor, CDNV, probe accuracy, LogME, relative gradient norm and condition number.

    Args:
      model, variables, dataset, devices: what to score, for what, where.
      blocks: which blocks.
      batch_size: images a step.
    """
    classes = len(dataset.class_names)
    dims = passes.widths(model, variables, dataset.image_shape)
    plan = methods.probe(model, variables, classes, jax.random.key(0), layer=None, dims=dims)
    wanted = list(dict.fromkeys([*blocks, model.penultimate]))
    run_pass = passes.make_pass(plan.model, cross_entropy(), dims, devices, stats=wanted, keep=wanted)
    seen = {name: run_pass(plan.variables, source(dataset.splits[name], dataset, devices, batch_size=batch_size))
            for name in ("train", "val")}
    reports = passes.collapse(seen["train"], seen["train"])
    fitted = {b: probe.fit(*((seen[name].features[b], seen[name].labels) for name in ("train", "val")), classes)
              for b in wanted}
    plan = solved.with_head(plan, fitted[model.penultimate])
    gradient, out = _gradient(plan, dataset, devices, batch_size), {}
    for b in blocks:
        report = reports[b].to_dict()
        params = variables["params"][b]
        kernels = [np.reshape(x, trees.matrix_shape(path.split("/")[-2], np.shape(x)))
                   for path, x in trees.paths({b: params}).items() if path.endswith("/kernel") and np.ndim(x) >= 2]
        out[b] = {"nc1_over_floor": report["nc1_over_floor"], "nc1": report["nc1"], "cdnv": report["cdnv"],
                  "probe_accuracy": fitted[b].val_accuracy,
                  "logme": score.logme(seen["train"].features[b], seen["train"].labels, classes),
                  "rgn": score.relative_norm(jax.tree.leaves(gradient[b]), jax.tree.leaves(params)),
                  "condition_number": score.condition_number(kernels)}
    return out


def _most(name: str) -> Callable[[Scores, Model], str]:
    return lambda found, _: max(found, key=lambda b: -math.inf if _absent(found[b][name]) else found[b][name])


def _least(name: str) -> Callable[[Scores, Model], str]:
    return lambda found, _: min(found, key=lambda b: math.inf if _absent(found[b][name]) else found[b][name])


def _absent(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _tunnel(found: Scores, model: Model) -> str:
    return list(found)[score.tunnel_start([x["probe_accuracy"] for x in found.values()])]


def _key_layer(found: Scores, model: Model) -> str:
    """The default key layer, or the candidate nearest to it from above."""
    order = model.backbone
    wanted = order.index(plans.default_layer(model))
    return min(found, key=lambda b: (abs(order.index(b) - wanted), -order.index(b)))


# Each chooses a block from the scores; ties go to the block nearer the input.
RULES: dict[str, Callable[[Scores, Model], str]] = {
    "nc1_over_floor": _least("nc1_over_floor"), "cdnv": _least("cdnv"), "probe_accuracy": _most("probe_accuracy"),
    "logme": _most("logme"), "rgn": _most("rgn"), "condition_number": _least("condition_number"), "tunnel_start": _tunnel,
    "first": lambda found, _: next(iter(found)), "middle": lambda found, _: list(found)[len(found) // 2],
    "key_layer": _key_layer, "last": lambda found, _: list(found)[-1],
}
MEANING = {
    "nc1_over_floor": "smallest NC1 over its no-signal floor", "cdnv": "smallest CDNV",
    "probe_accuracy": "best probe on validation", "logme": "largest LogME", "rgn": "largest relative gradient norm",
    "condition_number": "smallest condition number (KappaTune)",
    "tunnel_start": "first whose probe reaches 95 % of the last's", "first": "the first block", "middle": "the middle one",
    "key_layer": "the paper's, layer3.0 of a ResNet", "last": "the last block", "random": "any block, on average",
}


def choose(rule: str, found: Scores, model: Model) -> str:
    """The block that a rule chooses.

    Raises:
      UserError: no such rule.
    """
    if rule not in RULES:
        raise UserError(f"rule={rule!r}: {nearest(rule, RULES)}")
    return RULES[rule](found, model)


def ordered(rule: str, found: Scores, model: Model) -> list[str]:
    """The blocks from a rule's first choice on: what it would choose if those before were not there."""
    left, out = dict(found), []
    while left:
        out.append(choose(rule, left, model))
        del left[out[-1]]
    return out
