"""Every block tuned: which rule finds the best one before any tuning, and what does it lose?

    python -m ncjax.main --config=configs/paper/choose_layer.py:resnet20_fashion_mnist
    python -m ncjax.main --config=configs/paper/choose_layer.py:resnet20_cifar100
    python -m ncjax.main --config=configs/paper/choose_layer.py:resnet56_fashion_mnist
    python -m ncjax.main --config=configs/paper/choose_layer.py:mobilenet_v2_flowers5

Needs weights/cifar10_resnet*.npz, data/fashion_mnist.npz and data/cifar100.npz in the current folder. Two CPU cores: 20
to 40 minutes each. Record docs/results/choose_layer (1adb787, a77ac0e): pooled regret in points of layer3.0 0.7 [-1.0,
2.4], LogME 0.7 [-0.8, 2.3], CDNV 1.7 [-2.7, 6.0], the probe 2.0 [0.1, 3.8], a random block 3.7 [0.7, 6.7]; over the two
studies in which it compares, NC1 0.5 [-6.1, 7.2] (`bench/rejudge.py`).
"""

from ncjax import config


def of(depth, data, shots, **more):
    weights = dict(init=f"weights/cifar10_resnet{depth}.npz", model=f"models.resnet.resnet{depth}")
    return {**weights, "data": f"npz:data/{data}.npz", "shots": shots, "rounds": 5, "lr_grid": [0.1, 0.3, 1.0], **more}


def get_config(arg=""):
    return config.make(
        "choose_layer",
        arg,
        tune="all",
        rule="key_layer",
        seeds=3,
        steps=200,
        max_test=2000,
        widen=0,
        **of(20, "fashion_mnist", 20, rounds=10, lr_grid=[0.03, 0.1, 0.3]),
        variants=dict(
            resnet20_fashion_mnist={},
            resnet20_cifar100=of(20, "cifar100", 5),
            resnet56_fashion_mnist=of(56, "fashion_mnist", 20, blocks="re:layer[123].[048]"),
            mobilenet_v2_flowers5=dict(
                init="weights/imagenet_mobilenet_v2.npz",
                model=None,
                data="npz:data/flowers5.npz",
                image_size=64,
                shots=20,
                steps=150,
                rounds=5,
                batch_size=32,
                lr_grid=[0.03, 0.1],
            ),
        ),
        smoke=dict(
            init="runs/pretrain_smoke",
            model=None,
            data="embedded.digits",
            blocks=None,
            shots=3,
            seeds=2,
            steps=4,
            rounds=2,
            lr_grid=[0.1],
            batch_size=16,
            max_test=None,
        ),
    )
