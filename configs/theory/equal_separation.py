"""He & Su (2023): every layer of a trained perceptron separates the classes by the same factor.

    python -m ncjax.main --config=configs/theory/equal_separation.py

Prediction: log tr(S_W S_B^+) is linear in the layer; R² at least 0.9, mean over five seeds, at every depth. Minutes on
one core.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "studies.theory.equal_separation",
        arg,
        smoke=dict(per_class=10, depths=[4], width=20, seeds=2, steps=200, batch_size=20),
    )
