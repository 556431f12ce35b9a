"""Pre-training on the Fashion-MNIST cut that ships with ncjax: watch the features collapse.

    python -m ncjax.main --config=configs/pretrain.py
    python -m ncjax.main --config=configs/pretrain.py --config.projection_layers=2 --workdir=runs/pretrain_head
    python -m ncjax.main --config=configs/pretrain.py:data=npz:cifar100.npz,model=models.resnet.resnet20,epochs=10

SGD with momentum and weight decay 5e-4 on every leaf, cosine decay, no augmentation, so that 15 epochs are enough to fit
the training set: the regime in which collapse is seen. Measured numbers are in docs/results.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "pretrain",
        arg,
        data="embedded.fashion_mnist_mini",
        model="models.resnet.resnet14(stem_stride=2)",
        projection_layers=0,
        loss="losses.cross_entropy",
        epochs=15,
        batch_size=64,
        lr=0.05,
        weight_decay=5e-4,
        warmup_epochs=1.0,
        seed=0,
        smoke=dict(model="models.resnet.resnet8(width=4, stem_stride=2)", n_per_class=8, epochs=2),
    )
