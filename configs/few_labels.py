"""Fine-tuning methods side by side on few labels: 5 and 20 images a class of scikit-learn's digits.

    python -m ncjax.main --config=configs/pretrain.py
    python -m ncjax.main --config=configs/few_labels.py

Seeds are paired and subsets nested; every method gets the same grid and the same steps, and every choice is made on
validation, which has as many images a class as training at most. Real data:

    python -m ncjax.main --config=configs/few_labels.py:init=resnet56.npz,model=models.resnet.resnet56,data=npz:cifar100.npz

Two CPU cores: minutes. What to expect is in docs/results/few_labels.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "compare",
        arg,
        init="runs/pretrain",
        data="embedded.digits",
        shots=[5, 20],
        seeds=3,
        steps=300,
        smoke=dict(
            init="runs/pretrain_smoke",
            shots=[3],
            seeds=2,
            steps=4,
            rounds=2,
            lr_grid=[0.03, 0.1],
            batch_size=16,
            methods=["tuning.probe", "tuning.layer_ft_scaled", "tuning.scl_ft", "tuning.full_ft"],
        ),
    )
