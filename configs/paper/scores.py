"""Which transferability score is worth its time? Every score of ncjax against what networks come to. Claims C1 and C12.

    python -m ncjax.main --config=configs/paper/scores.py:public
    python -m ncjax.main --config=configs/paper/scores.py:own

public: twelve networks (eight of ImageNet at 128 px, uncropped; four ResNets of CIFAR-10 at 32 px) on five targets, a
linear probe the truth. own: the fourteen variants of `e4_losses.py`, one seed each, on digits, MNIST and CIFAR-10 in grey
at 28 px; the truth a probe, one tuned block with a skip, and full fine-tuning, 20 images per class, three seeds. Needs
weights/*.npz and data/*.npz in the current folder, and for the second runs/e4_losses.

Record docs/results/scores: 48 and 20 minutes on one core. A probe's validation accuracy loses least by its first choice
over both, 0.7 [0.1, 1.2] points over eight targets; LogME 0.7, PARC 0.7, directional CDNV 1.0, kNN 1.3 are not told apart
from it; size 4.0 [1.0, 7.0]; the best on the others loses 1.9 [0.7, 3.1] on a target. Public networks by a probe: weighted
Kendall of NC1 -0.85 [-0.96, -0.50], LogME +0.81 [0.03, 0.98], kNN +0.76 [-0.07, 0.97], parameters +0.39 [-0.10, 0.73].
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
BOTH = ("cross_entropy", "mse", "label_smoothing", "focal", "sup_con", "nt_xent", "etf")
OWN = [f"{name}+{layers}" for name in BOTH for layers in (0, 2)]


def get_config(arg=""):
    return config.make(
        "score_benchmark",
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
        targets=[f"npz:data/{name}.npz" for name in ("caltech101", "flowers5", "dtd10", "cifar10", "cifar100")],
        train_images=1000,
        val_images=300,
        test_images=700,
        largest=128,
        variants=dict(
            public={},
            own=dict(
                backbones=[f"runs/e4_losses/networks/{name}-0/epoch_20" for name in OWN],
                families=OWN,
                source_accuracy=[],
                controls=["knn"],
                targets=["embedded.digits", "npz:data/mnist.npz", "npz:data/cifar10.npz"],
                largest=0,
                methods=["tuning.scl_ft", "tuning.full_ft"],
                shots=20,
                steps=150,
                rounds=5,
                batch_size=32,
                lr_grid=[0.03, 0.1, 0.3],
            ),
        ),
        smoke=dict(
            backbones=["runs/pretrain_smoke", "runs/pretrain_smoke/checkpoints"],
            source_accuracy=[],
            families=[],
            controls=["knn"],
            targets=["embedded.digits"],
            train_images=60,
            val_images=20,
            test_images=40,
            methods=["tuning.scl_ft"],
            shots=3,
            seeds=2,
            steps=4,
            rounds=2,
            lr_grid=[0.1],
            batch_size=16,
        ),
    )
