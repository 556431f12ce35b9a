"""All toy models of the papers around ours, one report: each prediction beside what came out.

    python -m ncjax.main --config=configs/theory/all.py

Minority collapse, tag sums, deep unconstrained features, parsimony, compressed factorisations, a classifier fixed
beforehand, and the law of equi-separation, at the settings of the configs beside this one. Eight minutes on one core;
record docs/results/theory,
what came out: docs/neighbours.md.
"""

from ncjax import config

STUDIES = ("imbalance", "pick_all_label", "deep_ufm", "parsimony", "compression", "fixed_etf", "equal_separation")
SMOKE = {
    "imbalance": dict(many=[3], few=[2], large=[200], small=[50], points=9, steps=300),
    "pick_all_label": dict(classes=4, width=6, seeds=2, steps=1500),
    "deep_ufm": dict(widths=[12, 16], seeds=3, steps=1500, refine=200),
    "parsimony": dict(width=12, rank=2, steps=500, demo_depth=5, demo_steps=2000),
    "compression": dict(width=30, rank=2, steps=600, seeds=2),
    "fixed_etf": dict(per_class=12, seeds=2, steps=20, exemplars=3, batch_size=16),
    "equal_separation": dict(per_class=10, depths=[4], width=20, seeds=2, steps=200, batch_size=20),
}


def steps(changes):
    return {name: {"study": f"studies.theory.{name}", **changes.get(name, {})} for name in STUDIES}


def get_config(arg=""):
    return config.make("chain", arg, title="Toy models", steps=steps({}), smoke=dict(steps=steps(SMOKE)))
