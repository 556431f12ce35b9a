"""NCTI's three terms, from one linear discriminant analysis."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.scores.moments import Moments

COMPONENTS, LEADING = 64, 32  # principal components, and those whose variance sets the shrinkage
LEAST = 1e-10  # shrinkage, below which there is none


class Terms(NamedTuple):
    """What NCTI adds up."""

    features: float  # nuclear norm of the centred discriminant features
    confidence: float  # mean probability of the true class
    compactness: float  # log of the sum over classes of the nuclear norm of their rows of probabilities


def terms(features: Float[Array, "N D"], moments: Moments) -> Terms:
    """PCA to 64 components, LDA with shrinkage exp(-sum of the 32 largest variances), what it says (Wang et al., 2023).

    Raises:
      UserError: no class has two examples.
    """
    if moments.size <= len(moments.classes):
        raise UserError(f"{moments.size} examples of {len(moments.classes)} classes: none has two")

    def compute() -> Terms:
        x = moments.centred_in(COMPONENTS, features)
        variance = moments.total.values[: x.shape[1]] / (moments.size - 1)
        shrinkage = max(float(np.exp(-variance[:LEADING].sum())), LEAST)
        little = shrinkage == LEAST
        lda = LinearDiscriminantAnalysis("svd" if little else "eigen", shrinkage=None if little else shrinkage)
        low = lda.fit_transform(x, moments.labels)
        p = lda.predict_proba(x)
        blocks = [np.linalg.norm(p[moments.labels == k], ord="nuc") for k in range(len(moments.classes))]
        return Terms(
            features=float(np.linalg.norm(low - low.mean(0), ord="nuc")),
            confidence=float(p[np.arange(len(p)), moments.labels].mean()),
            compactness=float(np.log(np.sum(blocks))),
        )

    return moments.once("ncti", compute)
