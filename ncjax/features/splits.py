"""Every split of a data set through a network, one after another."""

from __future__ import annotations

from collections.abc import Sequence

from ncjax.core.mesh import make
from ncjax.core.types import Network
from ncjax.data import Dataset, batches_of
from ncjax.features import passes
from ncjax.features.resume import kept
from ncjax.losses import cross_entropy
from ncjax.runs.run import Run


def pass_over(
    run: Run, network: Network, dataset: Dataset, *, batch_size: int, keep: Sequence[str], stats: Sequence[str] = ()
) -> dict[str, passes.Evaluation]:
    """What was seen, by split.

    Args:
      run: told how far it is; what has been seen is written down there, and a stopped run goes on with it.
      network, dataset: what sees what.
      batch_size: images a step.
      keep, stats: layers whose features, and whose statistics, come back, as for `passes.make_pass`.
    """
    mesh, layers = make(), list(dict.fromkeys(keep))
    # The classifier's own width is that of its labels; only the layers below it are asked for.
    sized = network.model._replace(num_classes=len(dataset.class_names))
    through = passes.make_pass(sized, cross_entropy(), network.fed(dataset).widths(), mesh, stats=stats, keep=layers)
    seen = {}
    with kept(run.workdir, run.say, network.variables, dataset, batch_size=batch_size) as written:
        for name, split in dataset.splits.items():

            def tick(done: int, size: int, name: str = name) -> None:
                run.bar(f"{dataset.name} {name}", done, size, "")

            batches = batches_of(split, dataset, mesh, batch_size=batch_size)
            seen[name] = through(network.variables, batches, tick, written(name, layers))
    run.end_progress()
    return seen
