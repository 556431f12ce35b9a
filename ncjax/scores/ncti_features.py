"""NCTI's features."""

from __future__ import annotations

from jaxtyping import Float

from ncjax.core.types import Array
from ncjax.scores.moments import Moments
from ncjax.scores.ncti_terms import terms
from ncjax.scores.score import score


@score(label="NCTI, features", higher_is_better=True)
def ncti_features(features: Float[Array, "N D"], moments: Moments) -> float:
    """A term of NCTI: nuclear norm of the features that linear discriminant analysis keeps, see `ncti_terms.terms`."""
    return terms(features, moments).features
