"""The whole story in one command: pre-train, measure collapse, transfer, fine-tune, report.

    python -m ncjax.main --config=configs/quickstart.py

Source: 3 600 images of the Fashion-MNIST cut that ships with ncjax. Target: scikit-learn's digits. A 14-layer CIFAR ResNet
is pre-trained without and with a projection head; both are measured and probed at every block on source and target; the
one without is then fine-tuned by five methods on 20 images a class, at the same budget. Open runs/quickstart/report.html.
Time and numbers are in docs/results.
"""

from ncjax import config
from ncjax.studies.chain import tuned_by
from ncjax.studies.compare import METHODS

PRETRAIN = dict(
    study="pretrain",
    data="embedded.fashion_mnist_mini",
    model="models.resnet.resnet14(stem_stride=2)",
    epochs=15,
    batch_size=64,
    lr=0.05,
    weight_decay=5e-4,
    warmup_epochs=1.0,
)
FINETUNE = dict(
    init="@pretrain",
    data="embedded.digits",
    n_per_class=20,
    epochs=30,
    batch_size=64,
    lr=0.1,
    weight_decay=5e-4,
    warmup_epochs=1.0,
)


def steps(**changes):
    def step(base, **own):
        return {**base, **own, **{k: v for k, v in changes.items() if k in base or k == "n_per_class"}}

    transfer = dict(study="measure", probes=True)
    source, target = dict(data="embedded.fashion_mnist_mini"), dict(data="embedded.digits")
    return {
        "pretrain": step(PRETRAIN),
        "pretrain_head": step(PRETRAIN, projection_layers=2),
        "source": step(transfer, init="@pretrain", **source),
        "source_head": step(transfer, init="@pretrain_head", **source),
        "target": step(transfer, init="@pretrain", **target),
        "target_head": step(transfer, init="@pretrain_head", **target),
        **tuned_by(METHODS, **step(FINETUNE)),
    }


def get_config(arg=""):
    small = dict(model="models.resnet.resnet8(width=4, stem_stride=2)", epochs=2, n_per_class=8)
    return config.make("chain", arg, title="ncjax quick start", steps=steps(), smoke=dict(steps=steps(**small)))
