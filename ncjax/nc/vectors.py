"""How near one vector a class comes to a simplex ETF, without features: a classifier, embeddings of class names."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ncjax.core.errors import UserError
from ncjax.nc.measure import measure

OF_VECTORS = (
    "nc2_w",
    "nc2_w_centred",
    "equinorm",
    "equiangularity",
    "maximal_angle",
    "discrimination",
    "discrimination_centred",
)


def class_vectors(matrix: Float[np.ndarray, "K D"]) -> dict[str, float]:
    """{metric: value} of vectors as they are (`nc2_w`, `discrimination`) and with their mean subtracted (the others).

    Prompt tuning watches them of a text encoder's class embeddings (Zhu et al., 2024): 0 means a simplex ETF for all but
    discrimination, 1 less the largest cosine, which is K / (K - 1) there.

    Args:
      matrix: a row a class.

    Raises:
      UserError: not a matrix of two rows or more of finite numbers, rows that are all one vector, or one that is zero or
        the mean of all.
    """
    rows = np.asarray(matrix)
    if rows.ndim != 2 or len(rows) < 2 or rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise UserError(
            f"W of shape {list(rows.shape)} and type {rows.dtype}: expected [K, D], K at least 2, of finite numbers"
        )
    if (rows == rows[0]).all():
        raise UserError(f"W: its {len(rows)} rows are all the same vector")
    for what, each in (("zero", rows), ("the mean of all", rows - rows.mean(axis=0))):
        lost = np.flatnonzero(np.linalg.norm(each, axis=1) <= 1e-7 * np.abs(rows).max())
        if len(lost):
            raise UserError(f"W: row {lost[0]} is {what}, and has no direction")
    twice, labels = np.repeat(rows, 2, axis=0), np.repeat(np.arange(len(rows)), 2)  # class means are the rows themselves
    report = measure(twice, labels, classifier=(rows, np.zeros(len(rows), np.float32)), floors=False)
    return {name: float(report.values[name]) for name in OF_VECTORS}
