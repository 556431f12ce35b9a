"""NCTI's confidence."""

from __future__ import annotations

from jaxtyping import Float

from ncjax.core.types import Array
from ncjax.scores.moments import Moments
from ncjax.scores.ncti_terms import terms
from ncjax.scores.score import score


@score(label="NCTI, confidence", higher_is_better=True)
def ncti_confidence(features: Float[Array, "N D"], moments: Moments) -> float:
    """A term of NCTI: mean probability of the true class by linear discriminant analysis, see `ncti_terms.terms`."""
    return terms(features, moments).confidence
