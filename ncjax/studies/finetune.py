"""Fine-tune a trained model on a target by one method, with what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import jax

from ncjax import optim
from ncjax.core import mesh
from ncjax.core.errors import UserError
from ncjax.core.resolve import pick, resolve
from ncjax.data import Dataset, load, source
from ncjax.features.passes import reestimate
from ncjax.networks import card as cards
from ncjax.networks import delta
from ncjax.networks.weights import hub
from ncjax.runs.run import Run
from ncjax.training import fit
from ncjax.transfer import prefix, solved
from ncjax.tuning import plans


def _cached(run: Run, plan: plans.Plan, dataset: Dataset, devices: Any, *, cache: str, cache_dtype: str,
            cache_views: int, augment: str | None, batch_size: int, seed: int) -> prefix.Prefix | None:
    """The frozen prefix's activations, or None where every step must run the whole network."""
    first = plan.model.blocks[0]
    if cache_views and augment is None:
        raise UserError(f"cache_views={cache_views} keeps augmented views; say which with augment=augment.crop_flip")
    if augment is not None and not cache_views and cache not in ("off", "auto"):
        raise UserError(f"cache={cache}: augment={augment} would be drawn once and for all; set cache_views=4, say, to "
                        "keep that many views of each image, or cache=off")
    if cache == "off" or (augment is not None and not cache_views):
        return None
    if plan.start == first:
        if cache != "auto":
            raise UserError(f"cache={cache}: {first} is trained, so that no prefix is frozen; set cache=auto")
        return None
    kept = prefix.build(plan.model, plan.variables, dataset, devices, start=plan.start, batch_size=batch_size, where=cache,
                        dtype=cache_dtype, views=cache_views, seed=seed, folder=run.workdir,
                        augment=None if augment is None else resolve(augment))
    run.say(f"everything below {plan.start} ran once, in {kept.seconds:.1f} s; {kept.nbytes / 1e6:,.0f} MB of activations "
            f"in {cache_dtype} are kept ({kept.where})")
    return kept


def _begun(run: Run, plan: plans.Plan, dataset: Dataset, devices: Any, *, method: str, batch_norm: str,
           head_init: str | None, batch_size: int) -> tuple[plans.Plan, bool]:
    """The plan under a BatchNorm policy, statistics and classifier as they start; and whether that one was solved."""
    plan = plans.with_batch_norm(plan, batch_norm)
    tuned, total = plan.share()
    run.say(f"method {method}, layer {plan.layer or '-'}: {tuned:,} of {total:,} parameters tuned "
            f"({100 * tuned / total:.2f} %); BatchNorm of other blocks: {batch_norm}\n" + plans.match_table(plan))
    if batch_norm == "reestimate":
        batches = source(dataset.splits["train"], dataset, devices, batch_size=batch_size)
        plan = plan._replace(variables=reestimate(plan.model, plan.variables, batches, devices))
    how = head_init or plan.head
    if how == "random":
        return plan, False
    if batch_norm == "update" and not plan.trains:
        raise UserError(f"batch_norm=update moves statistics while training, but {method} takes no steps; set "
                        "batch_norm=reestimate or freeze")
    return solved.with_head(plan, solved.head_probe(plan, dataset, devices, batch_size=batch_size, how=how)), True


def _tuned(run: Run, plan: plans.Plan, dataset: Dataset, devices: Any, card: cards.Card, kept: prefix.Prefix | None, *,
           loss: str, epochs: int, batch_size: int, augment: str | None, seed: int, measure_every: int,
           scatter: bool | None, optimizer: dict[str, Any], unsaved: frozenset[str]) -> Any:
    """`fit.fit`, on the kept activations where there are any; a tracker only if it is one of the whole network."""
    arguments = dict(loss=loss, epochs=epochs, batch_size=batch_size, seed=seed, measure_every=measure_every,
                     scatter=scatter, optimizer=optimizer, unsaved=unsaved)
    if kept is None:
        return fit.fit(run, plan, dataset, devices, card, **arguments,
                          augment=None if augment is None else resolve(augment))
    trained, _, store = fit.fit(run, plan._replace(model=kept.model), kept.dataset, devices, card, **arguments,
                                   train_on=kept.views, augment=None if kept.views is None else prefix.pick_view)
    return trained, None, store


def run(
    *,
    run: Run,
    init: str,
    data: str = "embedded.digits",
    method: str = "tuning.scl_ft",
    layer: str | None = None,
    head_init: str | None = None,
    batch_norm: str = "freeze",
    loss: str = "losses.cross_entropy",
    epochs: int = 15,
    batch_size: int = 128,
    augment: str | None = None,
    cache: str = "auto",
    cache_dtype: str = "float32",
    cache_views: int = 0,
    seed: int = 0,
    measure_every: int = 0,
    scatter: bool | None = None,
    **options: Annotated[Any, cards.load, load, optim.build],
) -> dict[str, Any]:
    """Fine-tunes by one method; the epoch is chosen on validation and only then tested.

    Args:
      run: where it happens.
      init: a run's workdir, its checkpoint directory, or a file; see `card.load`.
      data: target data set; images take the size, channels and normalisation that the model was trained on.
      method: a function of `ncjax.tuning`: `tuning.scl_ft`, `tuning.last_k(k=3)`.
      layer: blocks: a name, a glob, a comma-separated list, or `re:REGEX`. None for the method's choice: layer3.0 of a
        ResNet for those that tune one block.
      head_init: "random", or solved on the frozen features: "probe" (L-BFGS) or "group_lasso". None for the method's
        choice. A method that trains only a solved classifier takes no steps.
      batch_norm: statistics of blocks that are not tuned: "freeze", "update", or "reestimate" (all of them once, on the
        target's training images, before tuning).
      loss, epochs, batch_size, augment, seed, measure_every, scatter: as in pre-training.
      cache: run the frozen prefix once and keep its activations: "auto" (where that is exact), "off", or where:
        "device", "host", "disk".
      cache_dtype: of the kept activations, "float32" or "bfloat16".
      cache_views: with `augment`, augmented views of each training image to draw once and keep.
      **options: of `card.load`, `data.load` and `optim.build`.
    """
    card, network, variables = cards.load(init, **pick(cards.load, options))
    devices = mesh.make()
    dataset = cards.load_data_for(card, data, options)
    run.announce(dataset, card.fed(dataset).describe())
    plan = cards.plan_of(method, network, variables, card, len(dataset.class_names), jax.random.key(seed), layer)
    plan, starts_solved = _begun(run, plan, dataset, devices, method=method, batch_norm=batch_norm, head_init=head_init,
                          batch_size=batch_size)
    origin = {"init": init if hub.is_remote(init) else str(Path(init).resolve()), "which": options["which"],
              "allow_missing": options["allow_missing"], "hash": cards.backbone_digest(network, variables)}
    card = card.fed(dataset)._replace(class_names=dataset.class_names, data=data, method=method, layer=plan.layer,
                                      batch_norm=batch_norm, base=origin)
    unsaved = plans.frozen_paths(plan, statistics=batch_norm != "reestimate")
    kept = tracker = None
    if plan.trains or not starts_solved:
        kept = _cached(run, plan, dataset, devices, cache=cache, cache_dtype=cache_dtype, cache_views=cache_views,
                       augment=augment, batch_size=batch_size, seed=seed)
        trained, tracker, store = _tuned(
            run, plan, dataset, devices, card, kept, loss=loss, epochs=epochs, batch_size=batch_size, augment=augment,
            seed=seed, measure_every=measure_every, scatter=scatter, optimizer=pick(optim.build, options),
            unsaved=unsaved)
    else:
        trained, store = fit.settle(run, plan, devices, card, seed=seed, unsaved=unsaved)
    best_epoch = int(trained.state.best_epoch) + 1
    best = store.restore("best", trained.state)
    # The chosen epoch is measured in full, once; its rows stand apart from the curves.
    tracker = tracker or fit.Tracker(run, plan, resolve(loss)(), dataset, devices, batch_size=batch_size,
                                        epochs=epochs, every=measure_every, scatter=scatter)
    chosen = tracker.evaluate(best.variables, collapse=True)
    run.forget_rows(lambda row: row["split"].startswith("chosen:"))
    tracker.write(best_epoch, chosen, prefix="chosen:")
    size = delta.write(run.workdir / delta.NAME, card, best.variables, unsaved) if run.writes else None
    store.close()
    accuracy = {split: layers["output"]["accuracy"] for split, layers in chosen.items()}
    nc1 = {split: chosen[split][network.penultimate].get("nc1") for split in ("train", "test")}
    tuned, total = plan.share()
    cost = {"tuned": tuned, "total": total, "share": tuned / total, "optimizer_bytes": trained.optimizer_bytes,
            "flops_per_step": trained.flops_per_step, "delta_bytes": size,
            "cache": kept and {"start": plan.start, "where": kept.where, "bytes": kept.nbytes, "seconds": kept.seconds}}
    run.table(f"{method} on {data}", ["tuned", "best epoch", "val", "test", "train", "NC1 train", "NC1 test"], [[
        f"{100 * tuned / total:.2f} %", str(best_epoch),
        *(f"{100 * accuracy[s]:.2f} %" if s in accuracy else "-" for s in ("val", "test", "train")),
        *(f"{x:.4g}" if x is not None else "-" for x in nc1.values())]])
    return {"data": dataset.describe(), "network": card.describe(),
            "method": method, "layer": plan.layer, "tuned_blocks": plan.tuned, **cost,
            "best_epoch": best_epoch, "accuracy": accuracy, "nc1": nc1, "penultimate": network.penultimate,
            "readout": plan.model.readout, "chosen": chosen}
