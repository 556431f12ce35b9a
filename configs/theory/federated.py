"""Li, Shang et al. (2023), Xiao et al. (2024): a classifier fixed to a simplex helps clients whose classes differ.

    python -m ncjax.main --config=configs/theory/federated.py

Prediction: at alphas of the clients' Dirichlet shares up to 0.1, FedETF's global accuracy and the cosine of its clients'
class means are above FedAvg's; on a long tail, realigning the lengths of FedLoGe's global head raises its accuracy on the
classes with fewest images, and its personal heads are above FedAvg; paired 95 % intervals over five seeds. Two rows were
added after a first run: the rarest classes beside FedAvg's, and personal heads beside FedAvg that knows each client's
class counts too. Five minutes on one core. Record docs/results/theory: two of eight hold, no advantage in accuracy.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "studies.theory.federated",
        arg,
        smoke=dict(per_class=12, clients=3, alphas=[0.5], seeds=2, rounds=2, local_steps=2, batch_size=8, imbalance=0.3),
    )
