"""Yang et al. (2023): targets fixed beforehand, a simplex ETF, forget less than a learned head, classes coming by parts.

    python -m ncjax.main --config=configs/theory/fixed_etf.py

Prediction: average incremental accuracy of dot regression above that of a learned head with the same replay, and higher
still with flying to collapse; paired 95 % intervals over five seeds. Minutes on one core.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "studies.theory.fixed_etf", arg, smoke=dict(per_class=12, seeds=2, steps=20, exemplars=3, batch_size=16, sessions=2)
    )
