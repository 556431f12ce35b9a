"""The paper's claims, one sentence each with the strongest objection; and what several records of one come to.

Li et al., *Understanding and Improving Transfer Learning of Deep Models via Neural Collapse* (TMLR 2024). Sentences and
numbering are this project's; the objections too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Claim(NamedTuple):
    """A claim of the paper."""

    says: str
    rule: str  # by which a record is judged, in short
    objection: str  # the strongest against taking support for it at its word


class Evidence(NamedTuple):
    """What one record says of a claim, in one setting."""

    claim: str  # "C1"
    setting: str  # networks, targets, images
    found: str  # the number and its interval, in words
    word: str  # "supported", "half supported", "undecided", "not supported", "contradicted" or "not tested"


RHO = "95 % interval of Spearman's correlation on the claimed side of 0"
CLAIMS = {
    "C1": Claim(
        "Across backbones, a lower NC1 on the target's training images goes with a better probe.",
        RHO,
        "A small NC1 implies that the training features are nearly separable, so part of the correlation is no discovery; "
        "a neighbours' vote says it as well.",
    ),
    "C2": Claim(
        "Across fine-tuned networks, a lower NC1 of held-out images goes with a higher accuracy.",
        RHO + ", over methods",
        "Held-out NC1 and held-out accuracy are two readings of how well classes are apart.",
    ),
    "C3": Claim(
        "Less collapse on the source goes with better transfer, at comparable source accuracy.",
        RHO + " among variants of comparable source accuracy; or the best epoch beats a more collapsed last one",
        "Comparable source accuracy leaves few variants; what lowers collapse also changes what is learned.",
    ),
    "C4": Claim(
        "That turns over outside the trained range: random features, the least collapsed, transfer worse.",
        "the best epoch beats the initialisation beyond its 95 % interval",
        "Where random features do well, as on digits, there is nothing to turn over.",
    ),
    "C5": Claim(
        "Less collapse keeps more of the input's structure: fine labels are read better after coarse training.",
        RHO,
        "Fine labels of ten classes are a coarse measure of structure.",
    ),
    "C6": Claim(
        "C3 explains which pre-training losses transfer.",
        RHO,
        "Losses differ in more than collapse.",
    ),
    "C7": Claim(
        "C3 explains what augmentation and adversarial training do to transfer.",
        RHO + "; pairs: the less collapsed transfers better beyond 95 % intervals",
        "Stronger augmentation lowers source accuracy with collapse, so few variants compare.",
    ),
    "C8": Claim(
        "C3 explains what projection heads do for transfer.",
        RHO + "; pairs: the less collapsed transfers better beyond 95 % intervals",
        "Small networks, few depths.",
    ),
    "C9": Claim(
        "C3 explains self-supervised pre-training.",
        "pairs: the less collapsed transfers better beyond 95 % intervals",
        "Supervised and self-supervised networks differ in source accuracy.",
    ),
    "C10": Claim(
        "Over the layers of one network, a lower NC1 goes with a better probe.",
        RHO,
        "Both improve with depth; layers narrower than classes - 1 do not compare.",
    ),
    "C11": Claim(
        "Across networks, a lower NC1 on novel classes goes with a higher few-shot accuracy.",
        RHO,
        "Two targets; networks of few families.",
    ),
    "C12": Claim(
        "CDNV and numerical rank say what NC1 says.",
        RHO,
        "CDNV grows with directions that classification ignores; wide networks have large ranks and transfer well.",
    ),
    "C13": Claim(
        "Tuning one block is comparable with full fine-tuning, for at least 90 % fewer parameters.",
        "SCL FT less full fine-tuning: within the margin by two one-sided tests, or ahead",
        "With few seeds hardly anything is shown to be level; short budgets favour tuning little.",
    ),
    "C14": Claim(
        "The skip connection lowers NC1 and raises accuracy over tuning the block alone.",
        "accuracy ahead and NC1 at the readout lower, both beyond 95 % intervals",
        "The skip enlarges the effective step: see the scale-matched control.",
    ),
    "C15": Claim(
        "It matters which layer is tuned, and NC1 ranks the layers.",
        "blocks differ, p < 0.05 permuted within seeds (half), and that of smallest NC1 loses less than a random one",
        "Three seeds; networks of one family.",
    ),
    "C16": Claim(
        "With scarce labels, tuning one block overfits less than full fine-tuning.",
        "a smaller gap of train and test accuracy beyond the 95 % interval, accuracy not behind",
        "A gap also closes by fitting less.",
    ),
    "C17": Claim(
        "Collapse on the target predicts transfer better than collapse on the source.",
        "95 % interval of the difference of the two correlations above 0",
        "The target's collapse has seen the labels that transfer is judged by.",
    ),
}
WORDS = ("supported", "half supported", "undecided", "not supported", "contradicted", "not tested")
AGAINST = ("not supported", "contradicted")


def overall(words: Sequence[str]) -> str:
    """What settings come to together: "supported", "not supported", "undecided" or "not tested".

    Of the settings that were tested, "supported" takes at least half and none against; "not supported" at least half
    against and none supported; else "undecided".
    """
    count = Counter(words)
    tested = sum(n for word, n in count.items() if word != "not tested")
    against = sum(count[word] for word in AGAINST)
    if not tested:
        return "not tested"
    if 2 * count["supported"] >= tested and not against:
        return "supported"
    return "not supported" if 2 * against >= tested and not count["supported"] else "undecided"
