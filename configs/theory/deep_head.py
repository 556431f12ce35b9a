"""Súkeník et al. (2023, 2024) on images: a small convolutional network with a head of four linear-ReLU layers.

    python -m ncjax.main --config=configs/theory/deep_head.py

Prediction: for two classes DNC1 falls with depth, and in every layer by ten times or more from the first epoch (two steps)
to the end, as do the conditions of the class means less 1; for ten every layer's DNC1 is under 0.05, one layer's rank is
below ten, and the loss is below that of deep collapse, beyond its interval over seeds. Decays are those of the toy model
`deep_ufm`. Limits stood before any run; after it the loss and the slope came to be judged by their intervals, which is
stricter, and conditions layer by layer. Images and steps were chosen on the first of the five seeds. Five minutes on one
core.
"""

from ncjax import config


def get_config(arg=""):
    return config.make("studies.theory.deep_head", arg, smoke=dict(per_class=8, seeds=2, steps=20, batch_size=8))
