"""Hong & Ling (2023) on images: is the minority of a trained network one above the threshold, and not below?

    python -m ncjax.main --config=configs/theory/imbalance_network.py

Prediction: the spread of the minority's logits is over 0.2 at 0.8 of the threshold and under 0.05 at 1.5, and logits fall
into blocks, their noise under a tenth of their contrast. Five classes of 300 images of Fashion-MNIST, five of 60, five
seeds; the limits stood before any run, steps were chosen on the first two seeds. Two and a half minutes
on one core. Record docs/results/theory: spread 0.30 [0.24, 0.35] and 0.007 [-0.001, 0.015]; all three hold.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "studies.theory.imbalance_network",
        arg,
        smoke=dict(large=12, small=4, over=[0.8, 1.5], seeds=2, steps=30, batch_size=16),
    )
