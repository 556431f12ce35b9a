"""A vote among neighbours."""

from __future__ import annotations

from typing import Annotated

from sklearn.neighbors import KNeighborsClassifier

from ncjax.core.types import Array
from ncjax.core.values import COUNT
from ncjax.scores.score import score


@score(label="kNN, validation", higher_is_better=True)
def knn(
    features: Array, labels: Array, val_features: Array, val_labels: Array, neighbours: Annotated[int, COUNT] = 5
) -> float:
    """Validation accuracy of a vote among the nearest training features by cosine.

    Args:
      features, labels, val_features, val_labels: of the target.
      neighbours: that vote; at most as many as there are training images.
    """
    model = KNeighborsClassifier(min(neighbours, len(labels)), metric="cosine").fit(features, labels)
    return float(model.score(val_features, val_labels))
