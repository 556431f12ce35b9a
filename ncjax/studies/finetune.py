"""Fine-tune a trained model on a target: probe, layer FT, SCL FT, full FT, each with what it costs."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from ncjax import card as cards
from ncjax import features, mesh, optim, probe, recipe, tuning
from ncjax.data import Dataset, load, source
from ncjax.lookup import pick
from ncjax.losses import cross_entropy
from ncjax.models.sequential import with_classifier_arrays
from ncjax.rundir import Run
from ncjax.types import UserError


def _warm_start(plan: tuning.Plan, dataset: Dataset, devices: Any, batch_size: int) -> tuning.Plan:
    """The plan with its classifier set to a probe of its own readout (the first half of LP-FT)."""
    dims = features.widths(plan.model, plan.variables, dataset.image_shape)
    run_pass = features.make_pass(plan.model, cross_entropy(), dims, devices, keep=[plan.model.readout])
    pairs = {}
    for name in ("train", "val"):
        if name in dataset.splits:
            seen = run_pass(plan.variables, source(dataset.splits[name], dataset, devices, batch_size=batch_size))
            pairs[name] = (seen.features[plan.model.readout], seen.labels)
    fitted = probe.fit(pairs["train"], pairs.get("val"), plan.model.num_classes)
    params = with_classifier_arrays(plan.variables["params"], jnp.asarray(fitted.weight), jnp.asarray(fitted.bias))
    return plan._replace(variables={**plan.variables, "params": params})


def run(
    *,
    run: Run,
    init: str,
    data: str = "embedded.digits",
    method: str = "tuning.scl_ft",
    layer: str | None = None,
    model: str | None = None,
    which: str = "last",
    head_init: str = "random",
    loss: str = "losses.cross_entropy",
    epochs: int = 15,
    batch_size: int = 128,
    augment: str | None = None,
    seed: int = 0,
    measure_every: int = 0,
    scatter: bool | None = None,
    **options: Annotated[Any, load, optim.build],
) -> dict[str, Any]:
    """Fine-tunes by one method; the epoch is chosen on validation and only then tested.

    Args:
      run: where it happens.
      init: a run's workdir, or its checkpoint directory.
      data: target data set; images take the size and channels that the model was trained on unless told otherwise.
      method: `tuning.probe`, `tuning.layer_ft`, `tuning.layer_ft_scaled`, `tuning.scl_ft` or `tuning.full_ft`.
      layer: the key layer: a block name, a glob, a comma-separated list, or `re:REGEX`. Default: layer3.0 of a ResNet.
      model: checked against the checkpoint; None takes the checkpoint's word.
      which: "last" or "best" checkpoint of `init`.
      head_init: "random", or "probe" to start the classifier from a linear probe (LP-FT).
      loss, epochs, batch_size, augment, seed, measure_every, scatter: as in pre-training.
      **options: of `data.load` and `optim.build`.
    """
    if head_init not in ("random", "probe"):
        raise UserError(f"head_init={head_init!r}: 'random' or 'probe'")
    card, network, variables = cards.load(init, which=which, model=model)
    devices = mesh.make()
    dataset = load(data, **cards.like(card, options))
    run.announce(dataset)
    layer = layer or tuning.default_layer(network)
    plan = cards.plan_of(method, network, variables, card, len(dataset.class_names), jax.random.key(seed), layer)
    tuned, total = plan.share()
    run.say(f"method {method}, layer {layer}: {tuned:,} of {total:,} parameters tuned ({100 * tuned / total:.2f} %)\n"
            + tuning.match_table(plan))
    if head_init == "probe":
        plan = _warm_start(plan, dataset, devices, batch_size)
    card = cards.Card(card.model, 0, dataset.image_shape, dataset.class_names, data, method, layer)
    trained, tracker, store = recipe.fit(
        run, plan.model, plan.variables, plan.mask, plan.live, dataset, devices, card, loss=loss, epochs=epochs,
        batch_size=batch_size, augment=augment, seed=seed, measure_every=measure_every, scatter=scatter,
        optimizer=pick(optim.build, options))
    best_epoch = int(trained.state.best_epoch) + 1
    best = store.restore("best", trained.state)
    # The chosen epoch is measured in full, once; its rows stand apart from the curves.
    chosen = tracker.evaluate(best.variables, collapse=True)
    run.forget_rows(lambda row: row["split"].startswith("chosen:"))
    tracker.write(best_epoch, chosen, prefix="chosen:")
    store.close()
    accuracy = {split: layers["output"]["accuracy"] for split, layers in chosen.items()}
    nc1 = {split: chosen[split][network.penultimate].get("nc1") for split in ("train", "test")}
    cost = {"tuned": tuned, "total": total, "share": tuned / total, "optimizer_bytes": trained.optimizer_bytes,
            "flops_per_step": trained.flops_per_step}
    run.table(f"{method} on {data}", ["tuned", "best epoch", "val", "test", "train", "NC1 train", "NC1 test"], [[
        f"{100 * tuned / total:.2f} %", str(best_epoch),
        *(f"{100 * accuracy[s]:.2f} %" if s in accuracy else "-" for s in ("val", "test", "train")),
        *(f"{x:.4g}" if x is not None else "-" for x in nc1.values())]])
    return {"data": dataset.describe(), "method": method, "layer": layer, "tuned_blocks": plan.tuned, **cost,
            "best_epoch": best_epoch, "accuracy": accuracy, "nc1": nc1, "penultimate": network.penultimate,
            "readout": plan.model.readout, "chosen": chosen}
