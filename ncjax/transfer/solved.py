"""How tuning starts: statistics of BatchNorm, and classifiers that are solved rather than trained.

A solved classifier takes one pass for the readout, then a convex problem.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.sharding import Mesh

from ncjax.core.errors import UserError
from ncjax.core.types import widths
from ncjax.data import Dataset, batches_of
from ncjax.features import passes
from ncjax.features.passes import reestimate
from ncjax.losses import cross_entropy
from ncjax.models.sequential import with_classifier_arrays
from ncjax.runs.run import Run
from ncjax.transfer import probe
from ncjax.transfer.logistic import Show
from ncjax.tuning import plans
from ncjax.tuning.plans import CLASSIFIER_INITS, Plan

SOLVERS = {"probe": probe.fit, "group_lasso": probe.fit_sparse}


def classifier(
    plan: Plan, dataset: Dataset, mesh: Mesh, *, batch_size: int, how: str, show: Show | None = None
) -> probe.Probe:
    """The probe of a plan's readout, its strength chosen on validation.

    Args:
      plan, dataset, mesh: what reads what, where.
      batch_size: images a step.
      how: "probe" or "group_lasso".
      show: told of the progress, as `Run.bar` is.

    Raises:
      UserError: no such solver.
    """
    if how not in SOLVERS:
        raise UserError(f"classifier_init={how!r}: one of {', '.join(CLASSIFIER_INITS)}")
    model = plan.model
    dims = widths(model, plan.variables, dataset.image_shape)
    run_pass = passes.make_pass(model, cross_entropy(), dims, mesh, keep=[model.readout])
    pairs = {}
    for name in ("train", "val"):
        if name in dataset.splits:
            seen = run_pass(plan.variables, batches_of(dataset.splits[name], dataset, mesh, batch_size=batch_size))
            pairs[name] = (seen.features[model.readout], seen.labels)
    return SOLVERS[how](pairs["train"], pairs.get("val"), model.num_classes, show=show)


def with_classifier(plan: Plan, fitted: probe.Probe) -> Plan:
    """The plan with a probe for its classifier."""
    params = with_classifier_arrays(plan.variables["params"], jnp.asarray(fitted.weight), jnp.asarray(fitted.bias))
    return plan._replace(variables={**plan.variables, "params": params})


def begin(
    run: Run,
    plan: Plan,
    dataset: Dataset,
    mesh: Mesh,
    *,
    method: str,
    batch_norm: str,
    classifier_init: str | None,
    batch_size: int,
) -> tuple[Plan, bool]:
    """The plan under a BatchNorm policy, statistics and classifier as they start; and whether that one was solved."""
    plan = plans.with_batch_norm(plan, batch_norm)
    tuned, total = plan.share()
    run.say(
        f"method {method}, layer {plan.layer or '-'}: {tuned:,} of {total:,} parameters tuned "
        f"({100 * tuned / total:.2f} %); BatchNorm of other blocks: {batch_norm}\n" + plans.match_table(plan)
    )
    if batch_norm == "reestimate":
        batches = batches_of(dataset.splits["train"], dataset, mesh, batch_size=batch_size)
        plan = plan._replace(variables=reestimate(plan.model, plan.variables, batches, mesh))
    how = classifier_init or plan.classifier_init
    if how == "random":
        return plan, False
    if batch_norm == "update" and not plan.trains:
        raise UserError(
            f"batch_norm=update moves statistics while training, but {method} takes no steps; set "
            "batch_norm=reestimate or freeze"
        )
    fitted = classifier(plan, dataset, mesh, batch_size=batch_size, how=how, show=run.bar)
    chosen = "the best on validation" if "val" in dataset.splits else "nothing is held out to choose it by"
    run.say(f"classifier solved with l2 = {fitted.l2:g}: {chosen}" + (", and an end of what is tried" * fitted.at_end))
    return with_classifier(plan, fitted), True
