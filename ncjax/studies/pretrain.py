"""Pre-train a classifier and watch its features collapse, layer by layer, epoch by epoch."""

from __future__ import annotations

from typing import Annotated, Any

import jax

from ncjax import optim
from ncjax.core import mesh, trees
from ncjax.core.resolve import pick, resolve
from ncjax.data import load
from ncjax.networks.card import Card
from ncjax.runs.rows import summary
from ncjax.runs.run import Run
from ncjax.training import fit
from ncjax.tuning import plans


def run(
    *,
    run: Run,
    data: str = "embedded.fashion_mnist_mini",
    model: str = "models.resnet.resnet14(stem_stride=2)",
    head: int = 0,
    loss: str = "losses.cross_entropy",
    epochs: int = 15,
    batch_size: int = 128,
    augment: str | None = None,
    seed: int = 0,
    measure_every: int = 1,
    scatter: bool | None = None,
    **options: Annotated[Any, load, optim.build],
) -> dict[str, Any]:
    """Pre-trains a model from scratch.

    Args:
      run: where it happens.
      data: data set name, see `data.load`.
      model: dotted name of a model, `models.resnet.resnet18(width=32)`.
      head: layers of the projection head between features and classifier, 0 to 5; discarded at transfer.
      loss: dotted name of a loss, `losses.label_smoothing(smoothing=0.1)`.
      epochs, batch_size: length of the run and examples a step.
      augment: dotted name of an augmentation, `augment.crop_flip(strength=1.0)`, or None.
      seed: of initialisation, data order and augmentation.
      measure_every: epochs between measurements of collapse; the last epoch is always measured. 0 for never.
      scatter: whether NC1 comes from D x D moments, or from a second pass in the directions of the class means. None for
        the first up to D = 4096, layer by layer.
      **options: of `data.load` and `optim.build`.
    """
    devices = mesh.make()
    dataset = load(data, **pick(load, options))
    run.announce(dataset)
    network = resolve(model)(num_classes=len(dataset.class_names), head=head)
    variables = jax.jit(network.init, static_argnums=1)(jax.random.key(seed), dataset.image_shape)
    parameters = trees.count(variables["params"])
    run.say(f"model {model}: {parameters:,} parameters, {len(network.backbone)} backbone blocks, "
            f"projection head of {head} layers; {devices.size} device(s)")
    trained, _, store = fit.fit(
        run, plans.everything(network, variables), dataset, devices,
        Card(model, head, dataset.image_shape, dataset.class_names, data).fed(dataset), loss=loss,
        epochs=epochs, batch_size=batch_size, augment=None if augment is None else resolve(augment), seed=seed,
        measure_every=measure_every, scatter=scatter, optimizer=pick(optim.build, options))
    store.close()
    final = summary(run.workdir, epochs)
    outputs = {split: layers["output"] for split, layers in final.items()}
    run.table(f"pre-training on {data}", ["split", "accuracy", "NC1", "CDNV", "NC2", "NC3", "NC4"], [
        [split, f"{100 * outputs[split]['accuracy']:.2f} %",
         *(f"{x:.4g}" if x is not None else "-" for x in (
             final[split].get(layer, {}).get(m) for layer, m in (
                 (network.penultimate, "nc1"), (network.penultimate, "cdnv"), (network.penultimate, "nc2"),
                 (network.readout, "nc3"), (network.readout, "nc4"))))]
        for split in outputs if split != "augmented"])
    return {"data": dataset.describe(), "layers": network.layers, "penultimate": network.penultimate,
            "readout": network.readout, "parameters": parameters, "best_epoch": int(trained.state.best_epoch) + 1,
            "flops_per_step": trained.flops_per_step, "final": final}
