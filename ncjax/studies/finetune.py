"""Fine-tune a trained model on a target by one method, with what it costs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
from jax.sharding import Mesh
from matplotlib import ticker

from ncjax.core.mesh import make
from ncjax.core.options import Was
from ncjax.core.resolve import absolute, short_name
from ncjax.core.roles import METHOD
from ncjax.core.types import Network
from ncjax.core.values import OneOf
from ncjax.data import Data, Dataset
from ncjax.networks import delta
from ncjax.networks.card import Card
from ncjax.networks.load import Init, backbone_digest, load, load_data_for
from ncjax.networks.weights import hub
from ncjax.optim import Optim
from ncjax.report import by_class, figures
from ncjax.report.collect import Finished, series
from ncjax.report.sections import Section, file_stem, nc1_words, own_metrics
from ncjax.report.tables import CHANCE, Row, Table, chances, in_percent, number, of_rows, percent, text, whole, wilson
from ncjax.runs.run import Run
from ncjax.training import fit
from ncjax.training.fit import Trained, Training
from ncjax.transfer import prefix, solved
from ncjax.transfer.prefix import Cache
from ncjax.tuning import plans
from ncjax.tuning.plans import Plan, Target


def _trained(
    run: Run,
    plan: Plan,
    dataset: Dataset,
    mesh: Mesh,
    card: Card,
    kept: prefix.Prefix | None,
    training: Training,
    optim: Optim,
    unsaved: frozenset[str],
) -> Trained:
    """`fit.fit`, on the kept activations where there are any."""
    if kept is None:
        return fit.fit(run, plan, dataset, mesh, card, training, optim, phase="finetune", unsaved=unsaved)
    views = None if kept.views is None else (kept.views, prefix.pick_view)
    return fit.fit(
        run,
        plan._replace(model=kept.model),
        kept.dataset,
        mesh,
        card,
        training if views else training._replace(augment=None),
        optim,
        phase="finetune",
        views=views,
        unsaved=unsaved,
    )


def _origin(options: Init, network: Network) -> dict[str, Any]:
    """Where the leaves come from that a fine-tuned checkpoint does not store."""
    init = options.init if hub.is_remote(options.init) else str(Path(options.init).resolve())
    return {"init": init, "which": options.which, "allow_missing": options.allow_missing, "hash": backbone_digest(network)}


def run(
    *,
    run: Run,
    init: Init,
    data: Data = Data("embedded.digits"),
    method: Annotated[str, METHOD] = "tuning.scl_ft",
    layer: str | None = None,
    classifier_init: Annotated[str | None, OneOf(*plans.CLASSIFIER_INITS), Was("head_init")] = None,
    batch_norm: Annotated[str, OneOf(*plans.BATCH_NORM)] = "freeze",
    training: Training = Training(measure_every=0),
    optim: Optim = Optim(),
    cache: Cache = Cache(),
) -> dict[str, Any]:
    """Fine-tunes by one method; the epoch is chosen on validation and only then tested.

    Args:
      run: where it happens.
      init: the network.
      data: target data set; images take the size, channels and normalisation that the model was trained on.
      method: a function of `ncjax.tuning`, `tuning.scl_ft`, `tuning.last_k(k=3)`, or one's own.
      layer: blocks: a name, a glob, a comma-separated list, or `re:REGEX`. None for the method's choice: layer3.0 of a
        ResNet for those that tune one block.
      classifier_init: "random", or solved on the frozen features: "probe" (L-BFGS) or "group_lasso". None for the method's
        choice. A method that trains only a solved classifier takes no steps.
      batch_norm: statistics of blocks that are not tuned: "freeze", "update", or "reestimate" (all of them once, on the
        target's training images, before tuning).
      training: the run.
      optim: how leaves move.
      cache: whether the frozen prefix runs once.
    """
    optim.check_length(training.epochs)
    network, mesh = load(init), make()
    dataset = load_data_for(network.card, data)
    run.announce(dataset, network.card.fed(dataset).describe())
    target = Target(len(dataset.class_names), jax.random.key(training.seed), layer or None)
    plan, was_solved = solved.begin(
        run,
        plans.plan_of(method, network, target),
        dataset,
        mesh,
        method=method,
        batch_norm=batch_norm,
        classifier_init=classifier_init,
        batch_size=training.batch_size,
    )
    card = network.card.fed(dataset)._replace(
        class_names=dataset.class_names,
        data=data.data,
        method=absolute(method),
        layer=plan.layer,
        batch_norm=batch_norm,
        base=_origin(init, network),
    )
    unsaved = plans.frozen_paths(plan, statistics=batch_norm != "reestimate")
    kept = None
    if plan.trains or not was_solved:
        kept = prefix.of_plan(run, plan, dataset, mesh, cache, training)
        trained = _trained(run, plan, dataset, mesh, card, kept, training, optim, unsaved)
    else:
        run.log_to(training.log_to, 0)
        run.say(f"{method} solves its classifier: seed={training.seed} and the learning rate change nothing in the result")
        trained = fit.settle(run, plan, mesh, card, seed=training.seed, unsaved=unsaved)
    best, best_epoch = trained.store.restore("best", trained.state), int(trained.state.best_epoch) + 1
    # The chosen epoch is measured in full, once; its rows are of a phase of their own.
    tracker = trained.tracker
    if tracker is None or kept is not None:  # that one saw kept activations
        tracker = fit.Tracker(run, plan, dataset, mesh, training, phase="chosen")
    run.say(f"measuring epoch {best_epoch}, the chosen one, at every layer and class by class ...")
    chosen = tracker.evaluate(best.variables, collapse=True)
    run.forget_rows(lambda row: row["phase"] == "chosen")
    tracker.write(best_epoch, chosen, phase="chosen")
    size = delta.write(run.workdir / delta.NAME, card, best.variables, unsaved) if run.writes else None
    trained.store.close()
    cost = {
        "optimizer_bytes": trained.optimizer_bytes,
        "flops_per_step": trained.flops_per_step,
        "spent": trained.spent,
        "delta_bytes": size,
        "cache": kept and {"start": plan.start, "where": kept.where, "bytes": kept.nbytes, "seconds": kept.seconds},
    }
    found = _results(plan, chosen, network.model.penultimate, best_epoch)
    described = dataset.describe()
    _show(run, f"{method} on {data.data}", described, found, [short_name(name) for name in training.metrics])
    classes = tracker.by_class(plan.variables, best.variables, dataset)
    return {"data": described, "network": card.describe(), "method": method, **found, **cost, **classes}


def _results(plan: Plan, chosen: fit.Summary, penultimate: str, best_epoch: int) -> dict[str, Any]:
    """What the chosen epoch came to, and how much was tuned for it."""
    tuned, total = plan.share()
    return {
        "layer": plan.layer,
        "tuned_blocks": plan.tuned,
        "tuned": tuned,
        "total": total,
        "share": tuned / total,
        "best_epoch": best_epoch,
        "accuracy": {split: layers["output"]["accuracy"] for split, layers in chosen.items()},
        "nc1": {split: chosen[split][penultimate].get("nc1") for split in ("train", "test")},
        "nc1_readout": {split: chosen[split][plan.model.readout].get("nc1") for split in ("train", "test")},
        "penultimate": penultimate,
        "readout": plan.model.readout,
        "chosen": chosen,
    }


def _show(run: Run, title: str, data: dict[str, Any], found: dict[str, Any], extra: Sequence[str]) -> None:
    accuracy, last = found["accuracy"], found["penultimate"]
    own = {f"{m} {split}": found["chosen"][split][last].get(m) for m in extra for split in ("train", "test")}
    marks = chances(accuracy, data)
    cells = [
        f"{100 * found['share']:.2f} %",
        str(found["best_epoch"]),
        *(f"{100 * accuracy[s]:.2f} %{marks[s]}" if s in accuracy else "-" for s in ("val", "test", "train")),
        *(
            f"{x:.4g}" if x is not None else "-"
            for x in (*found["nc1"].values(), *found["nc1_readout"].values(), *own.values())
        ),
    ]
    columns = [
        "tuned",
        "best epoch",
        "val",
        "test",
        "train",
        "NC1 train",
        "NC1 test",
        "readout train",
        "readout test",
        *own,
    ]
    run.table(title, columns, [cells])
    if any(marks.values()):
        run.say(CHANCE)


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every data set that was tuned on."""
    intro = (
        "Intervals cover the choice of test images, not of seeds: with one seed a method, overlapping intervals "
        "rank nothing. A low NC1 on the training set may only say that the set was fitted; NC1 test stands "
        "beside it."
    )
    sections = []
    for data in dict.fromkeys(run.config["data"] for run in runs):
        here, stem = [run for run in runs if run.config["data"] == data], file_stem("tuning", data)
        drawn = [
            (
                "Test accuracy with 95 % Wilson intervals over the share of parameters tuned. Methods that tune the same "
                "share are drawn slightly apart.",
                _accuracy_over_share(here, stem),
            ),
            (
                "Loss and accuracy over epochs, training (augmented, if it is) solid, validation dashed; a dot marks the "
                "epoch that was chosen on validation.",
                _learning_curves(here, stem),
            ),
        ]
        figures_of_classes, tables_of_classes = by_class.parts(_best(here) or here[0], stem)
        tables = [_table(here, data, stem), *tables_of_classes]
        title = f"What does tuning gain on {data}?"
        sections.append(Section(title, intro, [*drawn, *figures_of_classes], tables, _verdicts(here, data)))
    return sections


def _table(runs: Sequence[Finished], data: str, stem: str) -> Table:
    """A row a run."""
    sizes = ", ".join(f"{k} {v['size']}" for k, v in runs[0].results["data"].items())
    shared = "".join(
        f", {key} {runs[0].config[key]}"
        for key in ("n_per_class", "batch_size", "epochs", "lr", "seed")
        if len({run.config[key] for run in runs}) == 1
    )
    caption = (
        f"Fine-tuning on {data} ({sizes}){shared}. The epoch is chosen on validation. "
        "NC1 at the penultimate layer, without the skip, and at the readout, what the classifier reads: with a skip "
        "these differ, and the skip's claim is judged on the readout. layer_ft_scaled is the control for the skip: "
        "layer FT whose classifier reads twice the penultimate feature."
    )
    own = [(m, split) for m in own_metrics(runs) for split in ("train", "test")]
    return of_rows(stem, caption, [_row(run, own) for run in runs])


def _row(run: Finished, own: Sequence[tuple[str, str]]) -> Row:
    r, at = run.results, f"{run.name}/results.json: "
    layer = "–" if r["tuned_blocks"] == ["head"] else ("all" if r["method"].endswith("full_ft") else r["layer"])
    test = r["data"]["test"]
    return [
        ("run", text(run.name)),
        ("method", text(short_name(r["method"]))),
        ("layer", text(layer)),
        ("test % [95 %]", percent(r["accuracy"]["test"], at + "accuracy.test", test["size"], test.get("largest"))),
        ("tuned %", percent(r["share"], at + "share")),
        ("NC1 readout, test", number(r["nc1_readout"]["test"], at + "nc1_readout.test")),
        ("NC1 test", number(r["nc1"]["test"], at + "nc1.test")),
        ("val %", percent(r["accuracy"].get("val"), at + "accuracy.val")),
        ("train %", percent(r["accuracy"]["train"], at + "accuracy.train")),
        ("NC1 readout, train", number(r["nc1_readout"]["train"], at + "nc1_readout.train")),
        ("NC1 train", number(r["nc1"]["train"], at + "nc1.train")),
        ("best epoch", whole(r["best_epoch"], at + "best_epoch")),
        ("FLOPs a step", number(r["flops_per_step"], at + "flops_per_step")),
        ("tuned", whole(r["tuned"], at + "tuned")),
        ("optimiser bytes", whole(r["optimizer_bytes"], at + "optimizer_bytes")),
        *(
            (f"{m} {s}", number(r["chosen"][s][r["penultimate"]].get(m), f"{at}chosen.{s}.{r['penultimate']}.{m}"))
            for m, s in own
        ),
    ]


ALIKE = ("init", "which", "classes", "n_per_class", "val_fraction", "val_per_class", "split_seed", "image_size", "max_test")


def _verdicts(runs: Sequence[Finished], data: str) -> tuple[str, ...]:
    """A sentence for every group of runs of one network on the same images."""
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(repr([run.config.get(key) for key in ALIKE]), []).append(run)
    return tuple(_verdict(group, data) for group in groups.values())


def _best(runs: Sequence[Finished]) -> Finished | None:
    """The run of highest validation accuracy; None where some have none, or there is but one."""
    known = all("val" in run.results["accuracy"] for run in runs)
    return max(runs, key=lambda run: run.results["accuracy"]["val"]) if known and len(runs) > 1 else None


def _verdict(runs: Sequence[Finished], data: str) -> str:
    """The run that validation would choose, and whether its interval on test and the plain probe's are apart."""

    def test(run: Finished) -> str:
        return percent(run.results["accuracy"]["test"], "", run.results["data"]["test"]["size"]).text + " %"

    def ends(run: Finished) -> tuple[float, float]:
        return wilson(run.results["accuracy"]["test"], run.results["data"]["test"]["size"])

    best = _best(runs)
    if best is None and len(runs) > 1:
        return f"{data}: nothing was held out for validation by which one of {len(runs)} runs could be chosen."
    chosen = best or runs[0]
    r = chosen.results
    who = f"{chosen.name} ({short_name(r['method'])}) is best on validation and" if best else short_name(r["method"])
    said = (
        f"{data}: {who} reaches {test(chosen)} on test for {in_percent(r['share'])} of the parameters; NC1 on test at the "
        f"readout {nc1_words(r['chosen']['test'][r['readout']])}"
    )
    probe = next((run for run in runs if short_name(run.results["method"]) == "probe" and run is not chosen), None)
    if probe is None:
        return said + "."
    (low, high), (other_low, other_high) = ends(chosen), ends(probe)
    word = "behind" if low > other_high else "ahead" if high < other_low else "not told apart by one seed"
    return f"{said}. The plain probe: {test(probe)}, {word}."


def _accuracy_over_share(runs: Sequence[Finished], name: str) -> figures.Drawn:
    """Test accuracy with its 95 % interval over the share of parameters tuned."""
    markers = "osD^vP*X"
    with figures.panel(5.2, 3.4) as (figure, axis):
        for i, run in enumerate(runs):
            low, high = wilson(run.results["accuracy"]["test"], run.results["data"]["test"]["size"])
            share, value = 100 * run.results["share"], 100 * run.results["accuracy"]["test"]
            # Methods that tune the same blocks would hide one another: a few per cent apart on the log axis.
            same = sum(r.results["tuned"] == run.results["tuned"] for r in runs[:i])
            axis.errorbar(
                share * 1.08**same,
                value,
                [[value - 100 * low], [100 * high - value]],
                fmt=markers[i % len(markers)],
                color=figures.COLOURS[i % len(figures.COLOURS)],
                capsize=3,
                label=run.name,
            )
        axis.set(xscale="log", xlabel="parameters tuned, %", ylabel="test accuracy, %")
        axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        figures.legend_below(figure, axis)
        return figures.Drawn(f"share-{name}", figure)


def _learning_curves(runs: Sequence[Finished], name: str) -> figures.Drawn:
    """Loss and accuracy over epochs, one colour a run."""
    with figures.panels(2, 2, 3.0, width=4.1) as (figure, axes):
        for run, colour in zip(runs, itertools.cycle(figures.COLOURS), strict=False):
            for axis, metric, unit in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
                for split, style in (("augmented", "-"), ("val", "--")):
                    epochs, values = series(run, split, "output", metric)
                    label = run.name if split == "augmented" else None
                    axis.plot(epochs, [unit * v for v in values], style, color=colour, lw=1, label=label)
                    if split == "val" and run.results["best_epoch"] in epochs:
                        at = epochs.index(run.results["best_epoch"])
                        axis.plot(epochs[at], unit * values[at], "o", ms=4, color=colour)
        axes[0].set(title="loss", xlabel="epoch")
        figures.log_axis(axes[0])
        axes[1].set(title="accuracy, %", xlabel="epoch")
        for axis in axes:
            axis.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        figures.legend_below(figure, axes[0])
        return figures.Drawn(f"learning-{name}", figure)
