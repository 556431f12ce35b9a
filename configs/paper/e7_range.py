"""E7: one training run, read along the way: where does "less collapse transfers better" turn over? Claim C4.

    python -m ncjax.main --config=configs/paper/e7_range.py
    python -m ncjax.main --config=configs/paper/e7_range.py:cifar

Cross-entropy without augmentation, so that features collapse; read at initialisation and after 1, 2, 4, 8, 16 and 32
epochs. Embedded: 3600 images of Fashion-MNIST, digits as target, five seeds;
cifar: 100 images of each CIFAR-100 class, CIFAR-10 and Fashion-MNIST as targets, three seeds; needs data/*.npz.

Record docs/results/source_collapse: four minutes on one core. Transfer falls from 91.7 to 86.9 % between epochs 1 and 32
(best less last 4.8 [2.4, 7.2] points: C3 within the run supported); epoch 0 reads digits as well (best less first -0.4
[-3.0, 2.1]: C4 undecided). :cifar half an hour on one core beside other work: best (epoch 8) less first 11.3 [10.5, 12.1],
less last 3.9 [1.6, 6.3] points: both supported.
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

RECIPES = {"cross_entropy": dict(augment=None)}


def get_config(arg=""):
    return config.make(
        "source_collapse",
        arg,
        data="embedded.fashion_mnist_mini",
        targets=["embedded.digits"],
        model="models.resnet.resnet8(stem_stride=2)",
        augment="augment.crop_flip",
        epochs=32,
        batch_size=64,
        lr=0.05,
        weight_decay=5e-4,
        warmup_epochs=1.0,
        seeds=5,
        recipes=RECIPES,
        claim="C4",
        read=[0, 1, 2, 4, 8, 16, 32],
        variants=dict(cifar=dict(CIFAR, read=[0, 1, 2, 4, 8, 16, 30])),
        smoke=dict(
            model="models.mlp.mlp(depth=2,width=24)",
            n_per_class=12,
            batch_size=32,
            epochs=2,
            seeds=2,
            target_per_class=10,
            target_val_per_class=5,
            target_test=100,
            recipes=RECIPES,
            read=[0, 1, 2],
        ),
    )
