"""Methods on few labels, from public CIFAR-10 weights: 5, 20 and 100 images per class, three paired seeds.

    python -m ncjax.main --config=configs/paper/few_labels.py:resnet20_fashion_mnist
    python -m ncjax.main --config=configs/paper/few_labels.py:resnet20_cifar100
    python -m ncjax.main --config=configs/paper/few_labels.py:resnet56_fashion_mnist
    python -m ncjax.main --config=configs/paper/few_labels.py:resnet56_cifar100

Needs weights/cifar10_resnet*.npz, data/fashion_mnist.npz and data/cifar100.npz in the current folder. Records
docs/results/few_labels (b65f49c, 777a88e, a77ac0e, with their remarks); their last legs took half an hour to two and a
half hours on two CPU cores; sweeps had been stopped and resumed. SCL FT less full fine-tuning in points at 5, 20, 100 per
class: ResNet-56 on Fashion-MNIST -1.0 [-6.9, 4.9], -2.7 [-8.4, 3.0], -1.4 [-3.1, 0.2], on CIFAR-100 4.6 [-0.7, 9.9], 1.8
[-2.7, 6.3], 0.5 [-1.3, 2.3].
"""

from ncjax import config

SEVEN = [f"tuning.{name}" for name in ("probe", "head2toe", "layer_ft", "layer_ft_scaled", "scl_ft", "surgical", "full_ft")]
NINE = [*SEVEN[:-1], "tuning.bitfit", "tuning.lp_ft", SEVEN[-1]]


def of(depth, data, **more):
    weights = dict(init=f"weights/cifar10_resnet{depth}.npz", model=f"models.resnet.resnet{depth}")
    return {**weights, "data": f"npz:data/{data}.npz", "methods": SEVEN, "rounds": 5, **more}


def get_config(arg=""):
    wide = [0.03, 0.1, 0.3, 1.0]
    return config.make(
        "compare",
        arg,
        shots=[5, 20, 100],
        seeds=3,
        steps=200,
        max_test=2000,
        widen=0,
        **of(20, "fashion_mnist", methods=NINE, rounds=10, lr_grid=[0.03, 0.1, 0.3]),
        variants=dict(
            resnet20_fashion_mnist={},
            resnet20_cifar100=of(20, "cifar100", lr_grid=wide),
            resnet56_fashion_mnist=of(56, "fashion_mnist", lr_grid=wide[1:]),
            resnet56_cifar100=of(56, "cifar100", lr_grid=wide[1:]),
        ),
        smoke=dict(
            init="runs/pretrain_smoke",
            model=None,
            data="embedded.digits",
            shots=[3],
            seeds=2,
            steps=4,
            rounds=2,
            lr_grid=[0.1],
            batch_size=16,
            max_test=None,
            methods=["tuning.layer_ft_scaled", "tuning.full_ft"],
        ),
    )
