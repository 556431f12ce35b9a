"""The blocks of a network, each scored, priced, and tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ncjax.core.errors import UserError
from ncjax.evidence import intervals
from ncjax.evidence.claims import compared
from ncjax.report.tables import chance
from ncjax.scores.score import Score
from ncjax.transfer import ranking
from ncjax.transfer.few_shot import Bench


def takes_a_block(bench: Bench, method: str, names: Sequence[str], shots: int) -> None:
    """Refuses a method that tunes the same leaves whichever block it is given: its blocks could not be told apart."""
    if len(names) > 1:
        first, last = (bench.plan(method, block, bench.subsets.get(shots, 0), 0) for block in (names[0], names[-1]))
        if first.tuned == last.tuned:
            raise UserError(
                f"method={method} tunes {', '.join(first.tuned[:3])} whatever the block; choose one that tunes a block, "
                "such as tuning.scl_ft or tuning.layer_ft"
            )


def tune_each(bench: Bench, method: str, blocks: Sequence[str], shots: int) -> dict[str, Any]:
    """Blocks tuned in turn: test accuracy by seed, and means with 95 % t intervals, of NC1 by split and feature too."""
    cells, largest = {}, bench.subsets.get(shots, 0).largest("test")
    for block in blocks:
        bench.run.say(f"tuning {block} ...")
        found = bench.search(method, layer=block, shots=shots)
        cells[block] = found.cells
        test = intervals.share([c["test"] for c in found.cells])
        bench.run.say(f"{block:<10} test {intervals.percent(test)}{chance(test.low, largest)}  {found.describe()}")
    tuned = {block: [c["test"] for c in many] for block, many in cells.items()}
    return {
        "tuned": tuned,
        "accuracy": {b: list(intervals.share(x)) for b, x in tuned.items()},
        **{
            name: {b: intervals.mean_if_known([c[name] for c in many]) for b, many in cells.items()}
            for name in ("nc1_train", "nc1_test", "nc1_readout_train", "nc1_readout_test")
        },
    }


def beside_probe(bench: Bench, tuned: list[float], shots: int, margin: float) -> dict[str, Any]:
    """The plain probe's test accuracy by seed, and the chosen block's, compared with it seed by seed."""
    bench.run.say("the plain probe ...")
    test = [c["test"] for c in bench.search("tuning.probe", layer=None, shots=shots).cells]
    return {
        "probe": {"seeds": test, "test": list(intervals.share(test))},
        "gain": compared(tuned, test, margin=margin)._asdict(),
    }


def block_scores(bench: Bench, names: tuple[str, ...], wanted: dict[str, Score], shots: int, seed: int) -> dict[str, Any]:
    """Values and reasons of every block for the images of a seed, computed once in a workdir."""
    key = {"scores": ",".join(wanted), "shots": shots, "seed": seed, **bench.identity(shots, seed)}

    def compute() -> dict[str, Any]:
        bench.run.say(f"scores of {len(names)} blocks, seed {seed} ...")
        dataset = bench.subsets.get(shots, seed)
        values, reasons = ranking.scores(
            bench.network, dataset, bench.mesh, names, wanted, batch_size=bench.budget.batch_size
        )
        return {"values": values, "reasons": reasons}

    return bench.run.once(key, compute)


def block_costs(bench: Bench, method: str, names: tuple[str, ...], shots: int) -> dict[str, dict[str, float]]:
    """Share of parameters tuned, and of full fine-tuning's FLOPs a step, for every block."""
    dataset, out = bench.subsets.get(shots, 0), {}
    whole = bench.program("tuning.full_ft", None, dataset).expected_flops(dataset.image_shape)
    for block in names:
        program = bench.program(method, block, dataset)
        tuned, total = program.plan.share()
        flops = program.expected_flops(dataset.image_shape)
        out[block] = {"share": tuned / total, "flops": flops / whole if flops and whole else None}
    return out
