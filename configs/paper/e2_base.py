"""E2, the networks: eight recipes pre-trained on the 64 base classes of CIFAR-100, two seeds each.

    python -m ncjax.main --config=configs/paper/e2_base.py
    python -m ncjax.main --config=configs/paper/e2_few_shot.py:own

ResNet-20 on 100 images of each class, 20 epochs; losses, projection heads, and a run of five epochs. The second command
reads the networks on the 20 classes that none of them has seen. Needs data/cifar100.npz and data/cifar10.npz in the current
folder; an hour on one core.
"""

from ncjax import config
from ncjax.transfer.episodes import split_classes

BASE = ",".join(map(str, split_classes(100, novel=20, val=16, seed=0)["base"]))
RECIPES = {
    "cross_entropy+0": dict(loss="losses.cross_entropy"),
    "cross_entropy+2": dict(loss="losses.cross_entropy", projection_layers=2),
    "label_smoothing+0": dict(loss="losses.label_smoothing(smoothing=0.1)"),
    "label_smoothing+2": dict(loss="losses.label_smoothing(smoothing=0.1)", projection_layers=2),
    "mse+0": dict(loss="losses.mse"),
    "etf+0": dict(loss="losses.fixed_etf"),
    "sup_con+2": dict(loss="losses.sup_con", projection_layers=2),
    "short+0": dict(loss="losses.cross_entropy", epochs=5),
}
SEEDS = 2


def get_config(arg=""):
    return config.make(
        "source_collapse",
        arg,
        data="npz:data/cifar100.npz",
        classes=BASE,
        n_per_class=100,
        max_test=2000,
        targets=["npz:data/cifar10.npz"],
        model="models.resnet.resnet20(stem_stride=2)",
        augment="augment.crop_flip",
        epochs=20,
        batch_size=64,
        lr=0.05,
        weight_decay=5e-4,
        warmup_epochs=1.0,
        seeds=SEEDS,
        recipes=RECIPES,
        smoke=dict(
            data="embedded.fashion_mnist_mini",
            classes=None,
            targets=["embedded.digits"],
            model="models.mlp.mlp(depth=2,width=24)",
            n_per_class=12,
            batch_size=32,
            epochs=2,
            target_per_class=10,
            target_val_per_class=5,
            target_test=100,
            recipes={name: RECIPES[name] for name in ("cross_entropy+0", "mse+0")},
        ),
    )
