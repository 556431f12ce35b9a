"""NCTI's compactness."""

from __future__ import annotations

from jaxtyping import Float

from ncjax.core.types import Array
from ncjax.scores.moments import Moments
from ncjax.scores.ncti_terms import terms
from ncjax.scores.score import score


@score(label="NCTI, compactness", higher_is_better=False)
def ncti_compactness(features: Float[Array, "N D"], moments: Moments) -> float:
    """A term of NCTI: log of the summed nuclear norms of the classes' blocks of probabilities, see `ncti_terms.terms`."""
    return terms(features, moments).compactness
