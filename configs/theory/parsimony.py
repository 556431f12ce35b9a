"""Yaras et al. (2023): gradient descent from orthogonal weights moves 2r of d singular directions of a deep linear network.

    python -m ncjax.main --config=configs/theory/parsimony.py

Prediction: exactly d - 2r equal singular values in every layer, none from Gaussian weights; a network of 2r x 2r layers
follows the same trajectory to 1e-4; log C_l is linear in the layer, R² at least 0.95, linear and ReLU. Half a minute.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "studies.theory.parsimony", arg, smoke=dict(width=12, rank=2, steps=500, demo_depth=5, demo_steps=2000)
    )
