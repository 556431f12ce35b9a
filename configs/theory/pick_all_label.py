"""Li et al. (2024): means of images with two labels are scaled sums of the single labels' means, which form a simplex.

    python -m ncjax.main --config=configs/theory/pick_all_label.py

Prediction: cosines of single-label means are -1/(K-1) and pair means point where their tags' sums do. Counts as working
if the cosines are within 1e-3 and the angle metric below 1e-4, for both reductions of the loss. Half a minute.
"""

from ncjax import config


def get_config(arg=""):
    return config.make("studies.theory.pick_all_label", arg, smoke=dict(classes=4, width=6, seeds=2, steps=1500))
