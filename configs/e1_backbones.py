"""The paper's first finding: the more a public network's features collapse on the target, the better it transfers. Does it?

    python -m ncjax.main --config=configs/e1_backbones.py \
        --config.backbones=[resnet50.npz,mobilenet_v2.npz,...] --config.targets=[npz:caltech101.npz,npz:cifar10.npz,...]

Names such as torchvision:resnet18 and hf:timm/resnet50.a1_in1k are downloaded. Features are extracted once a pair; every
block's collapse is measured on the target's training images, probes are fitted at six blocks, kNN and size stand beside
them. The rule for verdicts is `weakest`, below, and was fixed before any run.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "backbones",
        arg,
        backbones=[
            "torchvision:resnet18",
            "torchvision:resnet50",
            "torchvision:mobilenet_v2",
            "torchvision:squeezenet1_1",
            "torchvision:alexnet",
            "torchvision:vgg16",
            "torchvision:densenet121",
            "torchvision:convnext_tiny",
        ],
        targets=["embedded.fashion_mnist_mini", "embedded.digits"],
        weakest=-0.3,
        # One network under its two names: no correlation comes of it, but every step runs.
        smoke=dict(
            backbones=["runs/pretrain_smoke", "runs/pretrain_smoke/checkpoints"],
            targets=["embedded.digits"],
            train_images=60,
            val_images=20,
            test_images=40,
            probe_layers=2,
        ),
    )
