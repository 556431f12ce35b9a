"""E4: which pre-training loss transfers, and does collapse say so? Claims C3, C6, C9 and C17.

    python -m ncjax.main --config=configs/paper/e4_losses.py
    python -m ncjax.main --config=configs/paper/e4_losses.py:cifar

Cross-entropy, MSE, label smoothing, focal, SupCon, SimCLR's NT-Xent (labels unused by the backbone) and a fixed simplex
ETF, each with a projection head of 0 and 2 layers; NT-Xent and cross-entropy with strong augmentation as well; and an
entropy regulariser with and without that ETF (about Harun et al., 2025). All else is the same for all.
Embedded: 3600 images of Fashion-MNIST, digits as target, five seeds;
cifar: 100 images of each CIFAR-100 class, CIFAR-10 and Fashion-MNIST as targets, three seeds; needs data/*.npz.

Record docs/results/source_collapse: half an hour on one core. Among the ten variants within two points of the best source
accuracy Spearman's correlation of source NC1 with the probe is +0.59 [-0.05, 0.92]: C3 and C6 undecided; NC1 of the target
-0.92 [-0.98, -0.45]: C17 supported. NT-Xent less cross-entropy, without a head: less collapsed and 48.6 [42.6, 54.6] points
worse; with one and strong augmentation -1.3 [-3.1, 0.6].
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

STRONG = "augment.strong(strength=2.0)"


def both(name, **changes):
    return {f"{name}+{layers}": dict(changes, projection_layers=layers) for layers in (0, 2)}


RECIPES = {
    **both("cross_entropy", loss="losses.cross_entropy"),
    **both("mse", loss="losses.mse"),
    **both("label_smoothing", loss="losses.label_smoothing(smoothing=0.1)"),
    **both("focal", loss="losses.focal"),
    **both("sup_con", loss="losses.sup_con"),
    **both("nt_xent", loss="losses.nt_xent"),
    "nt_xent_strong+2": dict(loss="losses.nt_xent", augment=STRONG, projection_layers=2),
    "cross_entropy_strong+2": dict(loss="losses.cross_entropy", augment=STRONG, projection_layers=2),
    **both("etf", loss="losses.fixed_etf"),
    "entropy+0": dict(loss="losses.entropy_regularised", projection_layers=0),
    "etf_entropy+2": dict(loss="losses.fixed_etf(entropy=0.1)", projection_layers=2),
}


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
        claim="C6",
        contrasts=["C9: nt_xent+0 - cross_entropy+0", "C9: nt_xent_strong+2 - cross_entropy_strong+2"],
        variants=dict(cifar=dict(CIFAR, model="models.resnet.resnet8(stem_stride=2,width=32)")),
        smoke=dict(
            model="models.mlp.mlp(depth=2,width=24)",
            n_per_class=12,
            batch_size=32,
            epochs=2,
            seeds=2,
            target_per_class=10,
            target_val_per_class=5,
            target_test=100,
            recipes={name: RECIPES[name] for name in ("cross_entropy+0", "nt_xent+0")},
            contrasts=["C9: nt_xent+0 - cross_entropy+0"],
        ),
    )
