"""E5: projection heads of 0 to 5 layers, discarded at transfer. Claims C3, C8 and C17.

    python -m ncjax.main --config=configs/paper/e5_heads.py
    python -m ncjax.main --config=configs/paper/e5_heads.py:cifar

Cross-entropy; collapse where transfer reads, before the head, and where the classifier reads, behind it.
Embedded: 3600 images of Fashion-MNIST, digits as target, five seeds;
cifar: 100 images of each CIFAR-100 class, CIFAR-10 and Fashion-MNIST as targets, three seeds; needs data/*.npz.

Record docs/results/source_collapse: thirteen minutes on one core. Spearman's correlation of source NC1 with the probe over
the six depths is +0.94 [0.03, 1.00]: C3 and C8 supported. Five layers less none +2.5 [1.6, 3.5] points.
cifar: two hours of one core. Deep heads cost source accuracy, three depths compare: C3, C8, C17 undecided; two layers less
none +1.4 [-0.9, 3.7] points, five less none -1.0 [-3.4, 1.4].
"""

from ncjax import config

CIFAR = dict(
    data="npz:data/cifar100.npz",
    n_per_class=100,
    max_test=5000,
    targets=["npz:data/cifar10.npz", "npz:data/fashion_mnist.npz"],
    model="models.resnet.resnet20(stem_stride=2)",
    epochs=30,
    batch_size=128,
    lr=0.1,
    seeds=3,
)

RECIPES = {f"{layers}_layers": dict(projection_layers=layers) for layers in range(6)}


def get_config(arg=""):
    return config.make(
        "source_collapse",
        arg,
        data="embedded.fashion_mnist_mini",
        targets=["embedded.digits"],
        model="models.resnet.resnet8(stem_stride=2)",
        augment="augment.crop_flip",
        epochs=20,
        batch_size=64,
        lr=0.05,
        weight_decay=5e-4,
        warmup_epochs=1.0,
        seeds=5,
        recipes=RECIPES,
        claim="C8",
        contrasts=["C8: 2_layers - 0_layers", "C8: 5_layers - 0_layers"],
        variants=dict(cifar=dict(CIFAR)),
        smoke=dict(
            model="models.mlp.mlp(depth=2,width=24)",
            n_per_class=12,
            batch_size=32,
            epochs=2,
            seeds=2,
            target_per_class=10,
            target_val_per_class=5,
            target_test=100,
            recipes={name: RECIPES[name] for name in ("0_layers", "2_layers")},
            contrasts=["C8: 2_layers - 0_layers"],
        ),
    )
