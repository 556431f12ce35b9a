"""NC1 at one width for all networks."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from jaxtyping import Float, Int

from ncjax import nc
from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.core.values import COUNT
from ncjax.scores.score import score


@score(label="NC1, equal width", higher_is_better=False)
def nc1_pca(
    features: Float[Array, "N D"], labels: Int[Array, " N"], num_classes: int, components: Annotated[int, COUNT] = 128
) -> float:
    """NC1 of the training features on their first principal components, as many for every network.

    NC1's floor depends on the width of the features; between networks of one width it does not (but for their spectra).

    Args:
      features, labels, num_classes: of the target's training images.
      components: principal components of the features, all classes together.

    Raises:
      UserError: fewer features or images than components, or fewer components than classes - 1.
    """
    x = np.asarray(features, np.float64)
    if components > min(x.shape[1], len(x) - 1):
        raise UserError(f"{len(x)} images of {x.shape[1]} features have no {components} principal components")
    if components < num_classes - 1:
        raise UserError(f"{components} components for {num_classes} classes: too few for NC1 to compare")
    x = x - x.mean(0)
    wide = x.shape[1] > len(x)
    _, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    top = vectors[:, -components:]
    projected = top * np.linalg.norm(x.T @ top, axis=0) if wide else x @ top
    stats = nc.collect(projected.astype(np.float32), np.asarray(labels), num_classes=num_classes)
    return float(nc.nc1(stats))
