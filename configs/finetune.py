"""Fine-tuning one block with a skip connection to the classifier (SCL FT), on scikit-learn's digits.

    python -m ncjax.main --config=configs/pretrain.py
    python -m ncjax.main --config=configs/finetune.py
    python -m ncjax.main --config=configs/finetune.py:method=tuning.full_ft --workdir=runs/full_ft

Methods are the functions of ncjax.tuning: probe, layer_ft, layer_ft_scaled (the control for the skip), scl_ft, full_ft, ...
The key layer defaults to layer3.0. The epoch is chosen on validation; its test accuracy is reported.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "finetune",
        arg,
        init="runs/pretrain",
        data="embedded.digits",
        method="tuning.scl_ft",
        epochs=15,
        batch_size=64,
        lr=0.05,
        weight_decay=5e-4,
        warmup_epochs=1.0,
        seed=0,
        smoke=dict(init="runs/pretrain_smoke", n_per_class=8, epochs=2),
    )
