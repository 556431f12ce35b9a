"""All toy models of the papers around ours, one report: each prediction beside what came out.

    python -m ncjax.main --config=configs/theory/all.py

Minority collapse, tag sums, deep unconstrained features, parsimony, compressed factorisations, a classifier fixed
beforehand, federated training and the law of equi-separation, at the settings of the configs beside this one. Record
docs/results/theory, what came out: docs/neighbours.md.
"""

from ncjax import config

STUDIES = (
    "imbalance",
    "imbalance_network",
    "pick_all_label",
    "multi_label",
    "deep_ufm",
    "deep_head",
    "parsimony",
    "compression",
    "fixed_etf",
    "federated",
    "equal_separation",
)


def steps(arg):
    return {name: config.load(f"theory/{name}:{arg}").to_dict() for name in STUDIES}


def get_config(arg=""):
    return config.make("chain", arg, title="Toy models", steps=steps(""), smoke=dict(steps=steps("smoke")))
