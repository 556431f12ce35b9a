"""Run by test_train: the same few steps in float64 on meshes of 1, 2 and 8 devices."""

import json
import sys

import jax
import numpy as np

from ncjax import data, nc, optim
from ncjax.core import mesh, trees
from ncjax.core.roles import AUGMENT, MODEL, resolve
from ncjax.core.types import widths
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.training import loop

NAME = "models.resnet.resnet8(width=4, stem_stride=2, dtype=float64)"


def run(devices):
    dataset = data.load(data.Data("embedded.fashion_mnist_mini", n_per_class=10))
    model = resolve(NAME, MODEL)(num_classes=10)
    variables = model.init(jax.random.key(0), dataset.image_shape)
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    mask = trees.block_mask(variables["params"], model.blocks)
    # 36 rows a step are no multiple of 8, and 100 examples no multiple of 36: filler rows everywhere.
    crop = resolve("augment.crop_flip(strength=1.0)", AUGMENT)
    source = data.batches_of(
        dataset.splits["train"],
        dataset,
        devices,
        batch_size=36,
        augment=crop,
    )
    tx, _ = optim.build(optim.Optim(lr=0.05), mask, source.steps, 2)
    state = loop.init_state(variables, tx, mask, jax.random.key(1), devices)
    step = loop.make_step(model.apply, cross_entropy(), tx, mask, frozenset(model.blocks), devices, ragged=source.ragged)
    fetch = loop.make_fetch(source, devices)
    losses = []
    for epoch in range(2):
        for item in source.items(loop.order_of(source.size, source.examples, 0, epoch)):
            state, loss = step(state, fetch(state, source.arrays, item))
            losses.append(float(loss))
    dims = widths(model, state.variables, dataset.image_shape)
    look = passes.make_pass(model, cross_entropy(), dims, devices, stats=model.layers, keep=[model.readout])
    seen = look(state.variables, data.batches_of(dataset.splits["train"], dataset, devices, batch_size=36))
    kernel = state.variables["params"]["head"]["linear"]["kernel"]
    return {
        "losses": losses,
        "accuracy": seen.accuracy,
        "head": np.ravel(kernel).tolist(),
        "statistics": np.ravel(state.variables["batch_stats"]["layer3.0"]["bn1"]["mean"]).tolist(),
        "collapse": [float(f(s)) for s in seen.stats.values() for f in (nc.nc1, nc.cdnv, nc.trace_ratio)],
    }


if __name__ == "__main__":
    found = {count: run(mesh.make(jax.devices()[:count])) for count in (1, 2, 8)}
    with open(sys.argv[1], "w") as file:
        json.dump(found, file)
