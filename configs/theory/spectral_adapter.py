"""Kwon et al. (2024) as a way of tuning: a compressed factorisation beside LoRA of the same rank.

    python -m ncjax.main --config=configs/theory/spectral_adapter.py

A ResNet-20 of CIFAR-10 on the first twenty classes of CIFAR-100, 20 images of each, five paired seeds; the block that layer
fine-tuning tunes. Prediction: none of theirs; `tuning.spectral` is our reading of the factorisation, and the question is
whether it beats LoRA of the same rank (rank² numbers a kernel fewer) with its interval clear of 0. Needs
weights/cifar10_resnet20.npz and data/cifar100.npz in the current folder.

Record docs/results/theory, three minutes on one core: spectral less LoRA -2.1 [-11.5, 7.2] points, not told apart.
"""

from ncjax import config

LORA = "tuning.lora(rank=4)"


def get_config(arg=""):
    return config.make(
        "compare",
        arg,
        init="weights/cifar10_resnet20.npz",
        model="models.resnet.resnet20",
        data="npz:data/cifar100.npz",
        classes="0-19",
        methods=[LORA, "tuning.spectral(rank=4)", "tuning.spectral(rank=4,outer=1)", "tuning.layer_ft", "tuning.probe"],
        references=[LORA, "tuning.probe"],
        layer="layer3.0",
        shots=[20],
        seeds=5,
        steps=150,
        rounds=5,
        batch_size=32,
        lr_grid=[0.03, 0.1, 0.3],
        max_test=1000,
        margin=0.01,
        smoke=dict(
            init="runs/pretrain_smoke",
            model=None,
            data="embedded.digits",
            classes=None,
            layer=None,
            shots=[3],
            seeds=2,
            steps=4,
            rounds=2,
            lr_grid=[0.1],
            batch_size=16,
            max_test=None,
        ),
    )
