"""CIFAR-10 to Fashion-MNIST with a ResNet-20: colour photographs to grey clothes, both read from .npz files.

Needs data/cifar10.npz and data/fashion_mnist.npz in the current folder; grey images are resized to 32x32 and repeated
over three channels, as the source network expects:

    python -m ncjax.main --config=configs/chains/cifar10_to_fashion_mnist.py

500 images a class and 10 epochs of pre-training; 100 images a class and 10 epochs for fine-tuning. Results: docs/results/.
"""

from ncjax import config
from ncjax.studies.chain import tuned_by
from ncjax.studies.compare import METHODS

PRETRAIN = dict(
    study="pretrain",
    data="npz:data/cifar10.npz",
    model="models.resnet.resnet20",
    n_per_class=500,
    epochs=10,
    batch_size=128,
    lr=0.1,
    weight_decay=5e-4,
    warmup_epochs=1.0,
    augment="augment.crop_flip(strength=1.0)",
    measure_every=2,
)
TARGET = dict(data="npz:data/fashion_mnist.npz", init="@pretrain")


def get_config(arg=""):
    steps = {
        "pretrain": PRETRAIN,
        "source": dict(study="measure", probes=True, init="@pretrain", data="npz:data/cifar10.npz", n_per_class=500),
        "target": dict(study="measure", probes=True, n_per_class=500, **TARGET),
        **tuned_by(METHODS, n_per_class=100, epochs=10, batch_size=128, lr=0.02, warmup_epochs=1.0, **TARGET),
    }
    embedded = {"npz:data/cifar10.npz": "embedded.fashion_mnist_mini", "npz:data/fashion_mnist.npz": "embedded.digits"}
    small = {
        name: {
            **step,
            "data": embedded[step["data"]],
            "n_per_class": 8,
            **({"epochs": 1} if "epochs" in step else {}),
            **({"model": "models.resnet.resnet8(width=4, stem_stride=2)"} if "model" in step else {}),
        }
        for name, step in steps.items()
        if name in ("pretrain", "target", "scl_ft")
    }
    return config.make("chain", arg, title="CIFAR-10 to Fashion-MNIST", steps=steps, smoke=dict(steps=small))
