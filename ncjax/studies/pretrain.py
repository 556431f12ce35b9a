"""Pre-train a classifier and watch its features collapse, layer by layer, epoch by epoch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import matplotlib as mpl
from matplotlib import ticker

from ncjax import data as sets
from ncjax.core import hosts, trees
from ncjax.core.mesh import make
from ncjax.core.options import Was
from ncjax.core.resolve import absolute, short_name
from ncjax.core.roles import MODEL
from ncjax.core.values import between
from ncjax.data import Data
from ncjax.models.named import build
from ncjax.nc.uncertainty import near_floor
from ncjax.networks.card import Card
from ncjax.optim import Optim
from ncjax.report import by_class, figures
from ncjax.report.collect import Finished, series
from ncjax.report.sections import TRUST, Section, nc1_words, own_metrics, row
from ncjax.report.tables import CHANCE, Cell, Row, chances, number, of_rows, over_floor, percent, text, trusted
from ncjax.runs.rows import summary
from ncjax.runs.run import Run
from ncjax.training import fit
from ncjax.training.fit import Training
from ncjax.tuning import plans


def run(
    *,
    run: Run,
    data: Data = Data(),
    model: Annotated[str, MODEL] = "models.resnet.resnet14(stem_stride=2)",
    projection_layers: Annotated[int, between(0, 5), Was("head")] = 0,
    training: Training = Training(),
    optim: Optim = Optim(),
) -> dict[str, Any]:
    """Pre-trains a model from scratch.

    Args:
      run: where it happens.
      data: the data set.
      model: name of a model, `models.resnet.resnet18(width=32)`.
      projection_layers: of the projection head between features and classifier, 0 to 5; discarded at transfer.
      training: the run.
      optim: how leaves move.
    """
    optim.check_length(training.epochs)
    mesh, dataset = make(), sets.load(data)
    run.announce(dataset)
    described = dataset.describe()
    classes = len(dataset.class_names)
    network = build(model, classes, projection_layers)
    variables = jax.jit(network.init, static_argnums=1)(jax.random.key(training.seed), dataset.image_shape)
    parameters = trees.count(variables["params"])
    run.say(
        f"model {model}: {parameters:,} parameters, {len(network.backbone)} backbone blocks, "
        f"projection head of {projection_layers} layers; {mesh.size} device(s)"
    )
    card = Card(
        model=absolute(model),
        projection_layers=projection_layers,
        image_shape=dataset.image_shape,
        class_names=dataset.class_names,
        data=data.data,
    ).fed(dataset)
    plan = plans.everything(network, variables)
    trained = fit.fit(run, plan, dataset, mesh, card, training, optim, phase="pretrain")
    trained.store.close()
    tracker = trained.tracker
    hosts.barrier()  # the first process has written the rows
    final = summary(run.workdir, training.epochs)
    _show(run, data.data, described, network, final, [short_name(name) for name in training.metrics])
    return {
        "data": described,
        "layers": network.layers,
        "penultimate": network.penultimate,
        "readout": network.readout,
        "parameters": parameters,
        "best_epoch": int(trained.state.best_epoch) + 1,
        "flops_per_step": trained.flops_per_step,
        "spent": trained.spent,
        "final": final,
        **(tracker.by_class(variables, trained.state.variables, dataset) if tracker and training.measure_every else {}),
    }


def _show(
    run: Run, data: str, described: dict[str, Any], network: Any, final: dict[str, Any], extra: Sequence[str]
) -> None:
    columns = ["split", "accuracy", "NC1", "CDNV", "NC2", "NC3", "NC4", *extra]
    last, read = network.penultimate, network.readout
    where = [(last, "nc1"), (last, "cdnv"), (last, "nc2"), (read, "nc3"), (read, "nc4"), *((last, m) for m in extra)]
    rows, marks = [], chances({name: final[name]["output"]["accuracy"] for name in described}, described)
    for split, layers in final.items():
        if split != "augmented":
            found = (layers.get(layer, {}).get(m) for layer, m in where)
            accuracy = f"{100 * layers['output']['accuracy']:.2f} %{marks.get(split, '')}"
            rows.append([split, accuracy, *(f"{x:.4g}" if x is not None else "-" for x in found)])
    run.table(f"pre-training on {data}", columns, rows)
    if any(marks.values()):
        run.say(CHANCE)


def section(runs: Sequence[Finished]) -> list[Section]:
    """How collapsed the features became over the epochs."""
    runs = [run for run in runs if run.config["measure_every"]]
    if not runs:
        return []
    drawn = [
        (
            "Collapse and accuracy over epochs, train solid, test dashed; epoch 0 is the random initialisation.",
            _over_epochs(runs),
        ),
        (
            'NC1 on the training set, every layer. "projection" is the output of the projection head.',
            _layers_over_epochs(runs),
        ),
    ]
    intro = (
        "Smaller NC1, NC2, NC3 and CDNV mean more collapse; NC4 is the share of examples on which the classifier "
        "agrees with the nearest class mean, 1 when collapsed. NC1 depends on sample size, width and number of "
        "classes: compare it within a column, and read NC1 / floor, its share of what labels without signal give."
    )
    caption = (
        "The last epoch. NC1, NC2 and CDNV at the penultimate layer; NC2 of W, NC3 and NC4 where "
        "the classifier reads (behind the projection head, if there is one). NC4 uses the training set's class "
        "means for both splits. " + TRUST + " " + CHANCE
    )
    table = of_rows("pretraining", caption, [_row(run, split, own_metrics(runs)) for run in runs for split in SPLITS])
    drawn_of_classes, tables_of_classes = by_class.parts(runs[0], "pretraining")
    title, tables = "How collapsed did the features become?", [table, *tables_of_classes]
    return [Section(title, intro, drawn + drawn_of_classes, tables, tuple(map(_verdict, runs)))]


SPLITS = ("train", "test")


def _row(run: Finished, split: str, extra: Sequence[str]) -> Row:
    r, epoch, seen = run.results, run.config["epochs"], run.results["data"][split]
    found, last = r["final"].get(split, {}), r["penultimate"]

    def source(layer: str, metric: str) -> str:
        return row(run, epoch, split, layer, metric)

    def cell(metric: str, layer: str) -> Cell:
        return number(found.get(layer, {}).get(metric), source(layer, metric))

    return [
        ("run, split", text(f"{run.name}, {split}")),
        (
            "accuracy % [95 %]",
            percent(found["output"]["accuracy"], source("output", "accuracy"), seen["size"], seen.get("largest")),
        ),
        ("NC1 [95 %]", trusted(found.get(last, {}), "nc1", source(last, "nc1"))),
        ("CDNV [95 %]", trusted(found.get(last, {}), "cdnv", source(last, "cdnv"))),
        ("NC1 / floor", over_floor(found.get(last, {}), "nc1", source(last, "nc1_over_floor"))),
        ("NC2", cell("nc2", last)),
        ("NC2 of W", cell("nc2_w", r["readout"])),
        ("NC3", cell("nc3", r["readout"])),
        ("NC4", cell("nc4", r["readout"])),
        *((m, cell(m, last)) for m in extra),
    ]


def _verdict(run: Finished) -> str:
    """How far the penultimate feature collapsed, and where it began."""
    r, layer = run.results, run.results["penultimate"]
    first = next(iter(series(run, "train", layer, "nc1")[1]), None)
    found = {split: r["final"][split] for split in ("train", "test")}
    began = "" if first is None else f" from {number(first).text} at initialisation"
    accuracy = percent(found["test"]["output"]["accuracy"], "", r["data"]["test"]["size"]).text
    return (
        f"{run.name}: at {layer} NC1 on train went{began} to {nc1_words(found['train'][layer])}, on test to "
        f"{nc1_words(found['test'][layer])}; test accuracy {accuracy} %."
    )


def _band(axis: Any, run: Finished, split: str, layer: str, metric: str, colour: str) -> None:
    """Shades the 95 % interval of a metric over epochs, where rows have one; a grey point where it is near its floor."""
    (epochs, low), (others, high) = (series(run, split, layer, f"{metric}_{end}") for end in ("low", "high"))
    if epochs and epochs == others:
        axis.fill_between(epochs, low, high, color=colour, alpha=0.18, lw=0)
    over, p = (dict(zip(*series(run, split, layer, f"{metric}_{end}"), strict=True)) for end in ("over_floor", "p"))
    near = [(x, y) for x, y in zip(*series(run, split, layer, metric), strict=True) if near_floor(over.get(x), p.get(x))]
    axis.plot([x for x, _ in near], [y for _, y in near], "o", ms=4, color=figures.NEAR, zorder=3)


def _over_epochs(runs: Sequence[Finished]) -> figures.Drawn:
    """NC1, NC2, NC3, NC4, CDNV and accuracy over epochs; train solid, test dashed; one colour a run.

    95 % bands, and a grey point where a value is near its floor.
    """
    panels = ("nc1", "nc2", "nc3", "nc4", "cdnv", "accuracy")
    with figures.panels(len(panels), 3) as (figure, axes):
        for axis, metric in zip(axes, panels, strict=True):
            for run, colour in zip(runs, itertools.cycle(figures.COLOURS), strict=False):
                where = {"nc3": "readout", "nc4": "readout"}.get(metric, "penultimate")
                layer = "output" if metric == "accuracy" else run.results[where]
                for split, style in (("train", "-"), ("test", "--")):
                    _band(axis, run, split, layer, metric, colour)
                    axis.plot(*series(run, split, layer, metric), style, color=colour, label=f"{run.name}, {split}")
            axis.set(title=figures.NAMES[metric], xlabel="epoch")
            axis.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
            if metric in ("nc1", "cdnv"):
                figures.log_axis(axis)
        figures.legend_below(figure, axes[0])
        return figures.Drawn("epochs", figure)


def _layers_over_epochs(runs: Sequence[Finished]) -> figures.Drawn:
    """NC1 on the training set at every layer over epochs, one panel a run, from first layer (dark) to last (light)."""
    with figures.panels(len(runs), 2, 3.0) as (figure, axes):
        # One colour a layer on every panel.
        longest = list(dict.fromkeys(layer for run in runs for layer in run.results["layers"]))
        shared = [s for run in runs for layer in run.results["layers"] for s in series(run, "train", layer, "nc1")[1]]
        for axis, run in zip(axes, runs, strict=True):
            for layer in run.results["layers"]:
                colour = mpl.colormaps["viridis"](0.9 * longest.index(layer) / max(1, len(longest) - 1))
                axis.plot(*series(run, "train", layer, "nc1"), color=colour, label=layer)
            axis.set(title=run.name, xlabel="epoch", ylabel="NC1, train")
            figures.log_axis(axis)
            if shared:
                axis.set_ylim(min(shared) / 1.3, max(shared) * 1.3)
        figures.legend_below(figure, max(axes, key=lambda a: len(a.lines)), 6)
        return figures.Drawn("layers", figure)
