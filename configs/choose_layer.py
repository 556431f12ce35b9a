"""Which block to tune, and what will it cost? Ranks the blocks of a trained network for a target before any fine-tuning.

    python -m ncjax.main --config=configs/pretrain.py
    python -m ncjax.main --config=configs/choose_layer.py
    python -m ncjax.main --config=configs/choose_layer.py:tune=all --workdir=runs/choose_layer_all

The first takes seconds: one pass forward, one backward, a probe a block. The third also tunes every block on three draws of
20 images a class and prints what each rule would have lost against the best block in hindsight: minutes on two CPU cores.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "choose_layer",
        arg,
        init="runs/pretrain",
        data="embedded.digits",
        smoke=dict(
            init="runs/pretrain_smoke",
            blocks="layer*.0",
            shots=3,
            seeds=2,
            steps=4,
            rounds=2,
            lr_grid=[0.1],
            batch_size=16,
            tune="all",
        ),
    )
