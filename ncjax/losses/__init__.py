"""Training losses. Each function takes its settings and returns a `Loss` over named features, or an `Objective`.

`N` examples (rows with mask 0 are filler), `K` classes, `z` logits, `y` labels.
"""

from ncjax.losses.adversarial import adversarial
from ncjax.losses.classification import balanced_softmax, cross_entropy, entropy_regularised, focal, label_smoothing, mse
from ncjax.losses.contrastive import nt_xent, sup_con
from ncjax.losses.etf import dot_regression, fixed_etf

__all__ = [
    "adversarial",
    "balanced_softmax",
    "cross_entropy",
    "dot_regression",
    "entropy_regularised",
    "fixed_etf",
    "focal",
    "label_smoothing",
    "mse",
    "nt_xent",
    "sup_con",
]
