"""E2: does collapse on novel classes say how few-shot learning goes? Claims C11 and C12.

    python -m ncjax.main --config=configs/paper/e2_few_shot.py:public
    python -m ncjax.main --config=configs/paper/e2_few_shot.py:own

Twelve public networks (eight of ImageNet at 128 px, uncropped; four ResNets of CIFAR-10 at 32 px) on CIFAR-100, classes
split 64 / 16 / 20, and Caltech-101, 65 / 16 / 20; or the networks of `e2_base.py` on the classes of CIFAR-100 that they
were not trained on. 600 episodes each of 5 and of all 20 novel classes, 1 and 5 shots. Needs
weights/*.npz and data/*.npz in the current folder. The rule for verdicts, `judged_by` and `weakest`, was fixed before the
run.

Record docs/results/few_shot (public): half an hour on one core. Spearman's correlation of NC1 on novel classes with
few-shot accuracy -0.95 [-1.00, 0.12]: C11 undecided; by setting -0.93 to -0.95, three intervals of four below 0.
Directional CDNV -0.93 [-0.96, -0.88], CDNV -0.08 [-0.39, 0.24], numerical rank +0.87 [0.46, 0.97].
`own`, three minutes once the networks are there: NC1 -0.69 [-0.96, 0.32], C11 undecided; directional CDNV
-0.95 [-0.99, -0.80], CDNV -0.71 [-1.00, 0.97], numerical rank +0.21 [-0.75, 0.89].
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
OWN = [f"{loss}+{layers}" for loss in ("cross_entropy", "label_smoothing") for layers in (0, 2)]
OWN += ["mse+0", "etf+0", "sup_con+2", "short+0"]
CIFAR = [f"weights/cifar10_resnet{depth}.npz" for depth in (20, 32, 44, 56)]


def get_config(arg=""):
    return config.make(
        "few_shot",
        arg,
        backbones=IMAGENET + CIFAR,
        families=[
            "alexnet",
            "vgg",
            "squeezenet",
            "mobilenet_v2",
            *["efficientnet_lite"] * 3,
            "resnet50",
            *["cifar_resnet"] * 4,
        ],
        source_accuracy=[0.0, 0.0, 0.613, 0.839, 0.888, 0.897, 0.911, 0.911] + [0.0] * 4,
        targets=["npz:data/cifar100.npz", "npz:data/caltech101.npz"],
        largest=128,
        judged_by="logistic",
        weakest=-0.3,
        variants=dict(
            public={},
            own=dict(
                backbones=[
                    f"runs/e2_base/networks/{name}-{seed}/epoch_{5 if name == 'short+0' else 20}"
                    for name in OWN
                    for seed in (0, 1)
                ],
                families=[name for name in OWN for _ in (0, 1)],
                source_accuracy=[],
                targets=["npz:data/cifar100.npz"],
            ),
        ),
        smoke=dict(
            backbones=["runs/pretrain_smoke", "runs/pretrain_smoke/checkpoints"],
            source_accuracy=[],
            families=[],
            targets=["embedded.digits"],
            novel_classes=4,
            val_classes=3,
            pool=12,
            base_pool=4,
            ways=[2, 0],
            shots=[1, 2],
            queries=4,
            episodes=6,
            val_episodes=3,
        ),
    )
