"""E1 and E3: does collapse on the target say which backbone transfers, and which of its layers?

    python -m ncjax.main --config=configs/paper/e1.py:all
    python -m ncjax.main --config=configs/paper/e1.py:imagenet

Twelve networks (eight of ImageNet at 128 px, uncropped; four ResNets of CIFAR-10 at 32 px) on five targets, or ImageNet's
eight alone, with the top-1 that the weights' collector states for six of them as source accuracy. Needs weights/*.npz and
data/*.npz in the current folder. Two CPU cores: an hour and a half beside other work; extraction resumes. The rule for
verdicts, `weakest`, was fixed before the run.

Record docs/results/e1_backbones, report at 7837d7d: mean Spearman correlation of NC1 (train) with the probe's test
accuracy -0.95 [-0.99, -0.79] (all), -0.91 [-0.97, -0.70] (imagenet): C1 supported. Over layers -0.84 [-0.97, -0.71], -0.87
[-1.00, -0.71]: C10 supported. CDNV -0.42 [-0.90, 0.52], -0.02 [-0.66, 0.64]: C12 undecided; numerical rank +0.62 [0.04,
0.89], +0.76 [0.46, 0.91]: contradicted. NC1 over its floor -0.82 [-0.99, 0.35], -0.49 [-0.87, 0.25]. kNN +0.92 [0.67,
0.98], +0.83 [0.03, 0.98].
"""

from ncjax import config

IMAGENET = [
    f"weights/imagenet_{name}.npz"
    for name in (
        "alexnet",
        "vgg16",
        "squeezenet11",
        "mobilenet_v2",
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
        "resnet50",
    )
]
CIFAR = [f"weights/cifar10_resnet{depth}.npz" for depth in (20, 32, 44, 56)]
FAMILIES = ["alexnet", "vgg", "squeezenet", "mobilenet_v2", *["efficientnet_lite"] * 3, "resnet50"]
SOURCE_ACCURACY = [0.0, 0.0, 0.613, 0.839, 0.888, 0.897, 0.911, 0.911]  # top-1 as stated; 0 where unknown
TARGETS = [f"npz:data/{name}.npz" for name in ("caltech101", "flowers5", "dtd10", "cifar10", "cifar100")]


def get_config(arg=""):
    return config.make(
        "backbones",
        arg,
        backbones=IMAGENET + CIFAR,
        families=FAMILIES + ["cifar_resnet"] * len(CIFAR),
        source_accuracy=SOURCE_ACCURACY + [0.0] * len(CIFAR),
        targets=TARGETS,
        train_images=1500,
        val_images=500,
        test_images=1000,
        largest=128,
        probe_layers=6,
        weakest=-0.3,
        variants=dict(
            all={},
            imagenet=dict(backbones=IMAGENET, families=FAMILIES, source_accuracy=SOURCE_ACCURACY),
        ),
        smoke=dict(
            backbones=["runs/pretrain_smoke", "runs/pretrain_smoke/checkpoints"],
            source_accuracy=[],
            families=[],
            targets=["embedded.digits"],
            train_images=60,
            val_images=20,
            test_images=40,
            probe_layers=2,
        ),
    )
