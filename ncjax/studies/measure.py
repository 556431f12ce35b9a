"""Measure a trained model on a data set without touching it: the collapse of every layer and, on request, a probe there."""

from __future__ import annotations

from typing import Annotated, Any

from ncjax.data import load
from ncjax.networks import card as cards
from ncjax.runs.run import Run
from ncjax.transfer import layerwise


def run(
    *,
    run: Run,
    init: str,
    data: str = "embedded.fashion_mnist_mini",
    batch_size: int = 256,
    probes: bool = False,
    scatter: bool | None = None,
    **options: Annotated[Any, cards.load, load],
) -> dict[str, Any]:
    """NC1, NC2, CDNV and the rest at every block, on train and test.

    Args:
      run: where it happens.
      init: a run's workdir, its checkpoint directory, or a file; see `card.load`.
      data: data set name; images take the size and channels that the model was trained on unless told otherwise.
      batch_size: images a step.
      probes: fit a linear probe at every layer, its regularisation chosen on validation.
      scatter: whether NC1 comes from D x D moments, or from a second look in the directions of the class means. None for
        the first up to D = 4096, layer by layer.
      **options: of `card.load` and `data.load`.
    """
    return layerwise.describe(run, init=init, data=data, options=options, batch_size=batch_size, probes=probes,
                              scatter=scatter)
