"""Hong & Ling (2023): minority classes collapse onto one another once the decay exceeds sqrt(n_B) / N.

    python -m ncjax.main --config=configs/theory/imbalance.py

Prediction: 2 sqrt(l_W l_H) = sqrt(n_B) / N, without a free parameter; and logits in blocks. Counts as working if the
measured transition lies within 3 % of it in every setting. A minute on one core.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "studies.theory.imbalance", arg, smoke=dict(many=[3], few=[2], large=[200], small=[50], points=9, steps=300)
    )
