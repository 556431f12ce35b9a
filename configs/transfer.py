"""Transfer without tuning: collapse and a linear probe at every layer, on a target the model has never seen.

    python -m ncjax.main --config=configs/pretrain.py
    python -m ncjax.main --config=configs/transfer.py

The probe is multinomial logistic regression by L-BFGS on standardised features, its regularisation chosen on the
validation split. Under half a minute on two CPU cores.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "measure",
        arg,
        probes=True,
        init="runs/pretrain",
        data="embedded.digits",
        smoke=dict(init="runs/pretrain_smoke", n_per_class=8),
    )
