"""E10: 1 to 100 images per class. Does tuning one block overfit less than tuning all? Claims C2, C13, C14 and C16.

    python -m ncjax.main --config=configs/paper/e10_scarce.py:resnet20_fashion_mnist
    python -m ncjax.main --config=configs/paper/e10_scarce.py:resnet20_cifar100
    python -m ncjax.main --config=configs/paper/e10_scarce.py:resnet56_fashion_mnist
    python -m ncjax.main --config=configs/paper/e10_scarce.py:resnet56_cifar100

Public CIFAR-10 weights; Fashion-MNIST, or the first twenty classes of CIFAR-100. Nested subsets, five paired seeds, 150
steps of 32 images for every method that trains, the learning rate chosen on as many validation images as training has.
Needs weights/cifar10_resnet*.npz, data/fashion_mnist.npz and data/cifar100.npz in the current folder. The rules for
verdicts stand in `ncjax.transfer.tuning_claims`; margin and weakest were fixed before the run.

Record docs/results/scarce (ResNet-20, both targets): 35 and 41 minutes on one core. C16 supported at 1 and 2 images per
class of CIFAR-100, contradicted at 20 of Fashion-MNIST, else undecided. SCL FT less full fine-tuning in points at 1, 10,
100 per
class: Fashion-MNIST -0.8 [-4.6, 3.0], -1.5 [-4.5, 1.5], -3.2 [-4.9, -1.4]. The ResNet-56 has not been run.
"""

from ncjax import config


def of(depth, data, **more):
    weights = dict(init=f"weights/cifar10_resnet{depth}.npz", model=f"models.resnet.resnet{depth}")
    return {**weights, "data": f"npz:data/{data}.npz", **more}


def get_config(arg=""):
    return config.make(
        "compare",
        arg,
        **of(20, "fashion_mnist"),
        methods=["tuning.probe", "tuning.layer_ft", "tuning.scl_ft", "tuning.full_ft"],
        shots=[1, 2, 5, 10, 20, 50, 100],
        seeds=5,
        steps=150,
        rounds=5,
        batch_size=32,
        lr_grid=[0.03, 0.1, 0.3],
        max_test=1000,
        margin=0.01,
        weakest=0.3,
        variants=dict(
            resnet20_fashion_mnist={},
            resnet20_cifar100=of(20, "cifar100", classes="0-19"),
            resnet56_fashion_mnist=of(56, "fashion_mnist"),
            resnet56_cifar100=of(56, "cifar100", classes="0-19"),
        ),
        smoke=dict(
            init="runs/pretrain_smoke",
            model=None,
            data="embedded.digits",
            shots=[1, 3],
            seeds=2,
            steps=4,
            rounds=2,
            lr_grid=[0.1],
            batch_size=16,
            max_test=None,
        ),
    )
