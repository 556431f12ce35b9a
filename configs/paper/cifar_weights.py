"""Public CIFAR-10 ResNets, measured: every block on 20 training images per class and on the test set.

    python -m ncjax.main --config=configs/paper/cifar_weights.py:resnet20

and resnet32, resnet44, resnet56. Needs weights/cifar10_resnet*.npz and data/cifar10.npz in the current folder; a minute
on two CPU cores. Record docs/results/cifar_weights: 91.73, 92.63, 93.10 and 93.39 % of all 10 000 test images, as their
author published.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "measure",
        arg,
        init="weights/cifar10_resnet20.npz",
        data="npz:data/cifar10.npz",
        trained_on="npz:data/cifar10.npz",
        n_per_class=20,
        variants={f"resnet{depth}": dict(init=f"weights/cifar10_resnet{depth}.npz") for depth in (20, 32, 44, 56)},
        smoke=dict(init="runs/pretrain_smoke", data="embedded.fashion_mnist_mini", trained_on=None, n_per_class=8),
    )
