"""CIFAR-100 to CIFAR-10 with a ResNet-20, at a size that two CPU cores train in under an hour.

Needs data/cifar100.npz and data/cifar10.npz (x_train, y_train, x_test, y_test; uint8) in the current folder:

    python -m ncjax.main --config=configs/chains/cifar100_to_cifar10.py

6 epochs of CIFAR-100 are far from convergence: this shows that the chain holds at full data size, not a benchmark.
Fine-tuning uses 100 images a class at the same budget for every method. Results: docs/results/.
"""

from ncjax import config
from ncjax.studies.chain import tuned_by
from ncjax.studies.compare import METHODS

SOURCE, TARGET = "npz:data/cifar100.npz", "npz:data/cifar10.npz"


def chain(source, target, pretrain, finetune):
    return {
        "pretrain": dict(
            study="pretrain",
            data=source,
            model="models.resnet.resnet20",
            batch_size=128,
            lr=0.1,
            weight_decay=5e-4,
            warmup_epochs=1.0,
            augment="augment.crop_flip(strength=1.0)",
            **pretrain,
        ),
        "source": dict(study="measure", probes=True, init="@pretrain", data=source, n_per_class=100),
        "target": dict(study="measure", probes=True, init="@pretrain", data=target, n_per_class=500),
        **tuned_by(
            METHODS, init="@pretrain", data=target, n_per_class=100, batch_size=128, lr=0.02, warmup_epochs=1.0, **finetune
        ),
    }


def get_config(arg=""):
    steps = chain(SOURCE, TARGET, dict(epochs=6, measure_every=2), dict(epochs=20))
    small = chain("embedded.fashion_mnist_mini", "embedded.digits", dict(epochs=1), dict(epochs=1))
    small = {name: {**small[name], "n_per_class": 8} for name in ("pretrain", "target", "scl_ft")}
    small["pretrain"]["model"] = "models.resnet.resnet8(width=4, stem_stride=2)"
    return config.make("chain", arg, title="CIFAR-100 to CIFAR-10", steps=steps, smoke=dict(steps=small))
