"""Collapse of every layer of a trained model, on its own training and test data.

    python -m ncjax.main --config=configs/pretrain.py
    python -m ncjax.main --config=configs/measure.py

A few seconds on two CPU cores. `--config.data=...` measures on any other labelled images; NC3 and NC4 are reported where
the data set has the classes that the classifier was trained on.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "measure",
        arg,
        init="runs/pretrain",
        data="embedded.fashion_mnist_mini",
        smoke=dict(init="runs/pretrain_smoke", n_per_class=8),
    )
