"""E6: strength of augmentation, and of adversarial training. Claims C3, C7 and C17.

    python -m ncjax.main --config=configs/paper/e6_augmentation.py
    python -m ncjax.main --config=configs/paper/e6_augmentation.py:cifar

Crop, flip, colour jitter and erasing of strength 0 to 2 (in per cent); and training on adversarial examples (PGD in
L-infinity, 3 steps) of radius 0, 1, 2, 4 and 8 of 255, with crop and flip. Accuracy under an attack of radius 4 (10
steps) is told for all. Embedded: 3600 images of Fashion-MNIST, digits as target, five seeds;
cifar: 100 images of each CIFAR-100 class, CIFAR-10 and Fashion-MNIST as targets, three seeds; needs data/*.npz.

Record docs/results/source_collapse: 47 minutes on one core, beside other work. Source accuracy falls with strength: two of
ten variants compare, C3 and C7 undecided; strength 200 % less none +3.7 [2.2, 5.2] points at log NC1 +2.64; PGD of 4 less
none +1.3 [-1.6, 4.3]. Accuracy under attack 59.8 % without, 75.0 % with PGD of 4.
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

RECIPES = {
    **{f"augment_{p}": dict(augment=f"augment.strong(strength={p / 100})") for p in (0, 50, 100, 150, 200)},
    **{f"pgd_{e}": dict(loss=f"losses.adversarial(epsilon={e}.0,steps=3)") for e in (0, 1, 2, 4, 8)},
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
        claim="C7",
        contrasts=["C7: augment_200 - augment_0", "C7: pgd_4 - pgd_0"],
        attack=4.0,
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
            recipes={name: RECIPES[name] for name in ("augment_100", "pgd_4")},
            contrasts=["C7: pgd_4 - augment_100"],
            attack_steps=2,
        ),
    )
