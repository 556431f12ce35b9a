"""E9: the main table. Every way of tuning, from nothing to everything, on the same images. Claims C2, C13 and C14.

    python -m ncjax.main --config=configs/paper/e9_table.py:resnet56_cifar100
    python -m ncjax.main --config=configs/paper/e9_table.py:mobilenet_v2_flowers5
    python -m ncjax.main --config=configs/paper/e9_table.py:mobilenet_v2_dtd10
    python -m ncjax.main --config=configs/paper/e9_table.py:efficientnet_lite0_flowers5

Public weights: a ResNet-56 of CIFAR-10 on the first twenty classes of CIFAR-100; a MobileNetV2 of ImageNet on five kinds of
flowers and on ten textures, an EfficientNet-Lite0 on the flowers, at 64 px; 20 images per class for training and for
validation, three paired seeds, 150 steps of 32 images for every method that trains, the same grid, which widens itself
alike. The margin of "comparable", a point by two one-sided tests, was fixed before the run. Needs weights/*.npz and
data/*.npz in the current folder.

Record docs/results/tuning: 48 and 25 minutes on one core, the two later rows as long beside other work. SCL FT less full
fine-tuning +0.5 [-5.5, 6.4] (6.7 % of the parameters), +2.7 [-8.3, 13.8] (5.6 %), -3.2 [-9.7, 3.4] (5.9 %) and +9.2 [-4.1,
22.5] points (6.8 %): C13 undecided. C2 supported on the ResNet-56, -0.81 [-0.96, -0.39] over ten methods, undecided
elsewhere. C14 half supported, undecided, contradicted (textures), half supported.
"""

from ncjax import config

METHODS = ("probe", "head2toe", "layer_ft", "layer_ft_scaled", "scl_ft", "surgical", "bitfit", "lora", "lp_ft", "full_ft")


def of(network, data):
    weights = f"weights/imagenet_{network}.npz"
    return dict(init=weights, data=f"npz:data/{data}.npz", classes=None, image_size=64, lr_grid=[0.03, 0.1])


def get_config(arg=""):
    return config.make(
        "compare",
        arg,
        init="weights/cifar10_resnet56.npz",
        data="npz:data/cifar100.npz",
        classes="0-19",
        methods=[f"tuning.{name}" for name in METHODS],
        shots=[20],
        seeds=3,
        steps=150,
        rounds=5,
        batch_size=32,
        lr_grid=[0.1, 0.3],
        max_test=1000,
        margin=0.01,
        weakest=0.3,
        variants=dict(
            resnet56_cifar100={},
            mobilenet_v2_flowers5=of("mobilenet_v2", "flowers5"),
            mobilenet_v2_dtd10=of("mobilenet_v2", "dtd10"),
            efficientnet_lite0_flowers5=of("efficientnet_lite0", "flowers5"),
        ),
        smoke=dict(
            init="runs/pretrain_smoke",
            data="embedded.digits",
            classes=None,
            shots=[3],
            seeds=2,
            steps=4,
            rounds=2,
            lr_grid=[0.1],
            batch_size=16,
            max_test=None,
            methods=["tuning.probe", "tuning.scl_ft", "tuning.layer_ft", "tuning.full_ft"],
        ),
    )
