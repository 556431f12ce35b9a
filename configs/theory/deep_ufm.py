"""Súkeník et al. (2023, 2024): deep neural collapse is optimal for two classes, and is not for ten.

    python -m ncjax.main --config=configs/theory/deep_ufm.py

Prediction: with K = 2 at least 90 % of 20 starts within 1 % of the closed form; with K = 10, L = 4 and decay .004 the
solution of a strongly regular graph below deep collapse; the share of starts that end in deep collapse rises with width.
Minutes.
"""

from ncjax import config


def get_config(arg=""):
    return config.make("studies.theory.deep_ufm", arg, smoke=dict(widths=[12, 16], seeds=3, steps=1500, refine=200))
