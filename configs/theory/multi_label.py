"""Li et al. (2024) on images: two pictures on a canvas, a learned head beside one fixed to a simplex.

    python -m ncjax.main --config=configs/theory/multi_label.py

Prediction: pair means lie along their labels' sums (angle metric under 0.2 and falling), NC1 of images with one label is
under 0.1, and the fixed head loses no more than a point of test IoU. Limits stood before any run, steps were chosen on
the first two of the five seeds; after a first run "falling" came to be judged by its interval, which is stricter. Two and
a half minutes on one core. Record
docs/results/theory: angles 0.09; NC1 0.25 and 0.28, not under 0.1; IoU +0.3 [-1.0, 1.6] points, undecided.
"""

from ncjax import config


def get_config(arg=""):
    return config.make("studies.theory.multi_label", arg, smoke=dict(singles=10, pairs=2, seeds=2, steps=20, batch_size=16))
