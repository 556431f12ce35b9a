"""Kwon et al. (2024): a compressed deep factorisation completes a matrix no worse than the wide one at any step.

    python -m ncjax.main --config=configs/theory/compression.py

Prediction: error of the compressed at most that of the wide at every logged step; seconds beside it. A minute.
"""

from ncjax import config


def get_config(arg=""):
    return config.make("studies.theory.compression", arg, smoke=dict(width=30, rank=2, steps=600, seeds=2, lr=2.0))
