"""Run by test_features, once a host: every layer's collapse on a data set that the hosts share out, in two passes."""

import functools
import json
import sys

import jax

from ncjax.core import mesh
from ncjax.core.types import widths
from ncjax.data import Data, batches_of, load
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.models.mlp import mlp


def main(npz, out, hosts, host, port):
    if hosts > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=hosts, process_id=host)
    assert jax.process_count() == hosts
    dataset, devices = load(Data(f"npz:{npz}", val_fraction=0.0)), mesh.make()
    model = mlp(num_classes=3, width=24, depth=2)
    variables = mesh.place(model.init(jax.random.key(0), dataset.image_shape), mesh.replicated(devices))
    dims = widths(model, variables, dataset.image_shape)
    batches = batches_of(dataset.splits["train"], dataset, devices, batch_size=7)  # filler rows in the last batch
    found = {}
    for scatter in (True, False):
        seen = passes.make_pass(model, cross_entropy(), dims, devices, stats=model.layers, scatter=scatter)(
            variables, batches
        )
        again = functools.partial(passes.make_second_pass(model, devices), variables, batches)
        reports = passes.collapse(seen, seen, everywhere=True, again=again)
        found |= {f"{layer}, scatter {scatter}": report.scalars() for layer, report in reports.items()}
    if host == 0:
        with open(out, "w") as file:
            json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
