"""Transfer a trained model to a target without touching it: collapse and a linear probe at every layer."""

from __future__ import annotations

from typing import Annotated, Any

from ncjax import layerwise
from ncjax.data import load
from ncjax.rundir import Run


def run(
    *,
    run: Run,
    init: str,
    data: str = "embedded.digits",
    model: str | None = None,
    which: str = "last",
    batch_size: int = 256,
    **options: Annotated[Any, load],
) -> dict[str, Any]:
    """NC1, NC2, CDNV and the rest, and a linear probe (regularisation chosen on validation), at every block.

    Args:
      run: where it happens.
      init: a run's workdir, or its checkpoint directory.
      data: data set name; images take the size and channels that the model was trained on unless told otherwise.
      model: checked against the checkpoint; None takes the checkpoint's word.
      which: "last" or "best" checkpoint.
      batch_size: images a step.
      **options: of `data.load`.
    """
    return layerwise.describe(run, init=init, which=which, model=model, data=data, options=options,
                              batch_size=batch_size, probes=True)
