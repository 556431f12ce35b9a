"""Judges records again by today's rules, from the numbers that stand in them.

    python bench/rejudge.py methods docs/results/few_labels/resnet*.json [--out FILE.json]
    python bench/rejudge.py blocks docs/results/choose_layer/results.json [--out FILE.json]

`methods`: SCL FT against layer FT, the scale-matched control and full fine-tuning, seed by seed, with the words of
`ncjax.evidence.claims.compared` for a margin of one point; and the FLOPs of a step of every method, counted anew. `blocks`:
every rule's regret over the recorded accuracies of tuned blocks, its scores computed anew on the images and seeds of the
record (it stops where CDNV comes out another), and that of the recorded NC1 with narrow blocks among the candidates; then
pooled over studies; and what tuning each block costs, counted anew. Both need the data and weights of the configs in
configs/paper of the same names in the current folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np

from ncjax import config
from ncjax.core.options import bind
from ncjax.evidence import intervals, regret
from ncjax.evidence.claims import Comparison, compared
from ncjax.runs.run import Run
from ncjax.scores.score import all_named
from ncjax.studies import choose_layer, compare
from ncjax.transfer import blocks, ranking
from ncjax.transfer.few_shot import Bench

MARGIN = 0.01


def shown(found: Comparison) -> str:
    """'2.1 [0.3, 3.9] points (ahead)'."""
    return f"{intervals.percent(found.difference).removesuffix(' %')} points ({found.word})"


def bench_of(study: Any, name: str, folder: str) -> tuple[Bench, dict[str, Any]]:
    """The bench of a config in configs/paper, and its options."""
    spec = Path(__file__).parents[1] / "configs" / "paper" / name
    options = bind(study.run, config.plain(config.load(str(spec)))[1])
    return Bench(Run(folder), *(options[k] for k in ("init", "target", "search", "budget"))), options


def methods(path: Path) -> dict[str, Any]:
    """{shots: {method: comparison of SCL FT with it}}, and "flops_per_step" by method."""
    out: dict[str, Any] = {}
    for count, entries in json.loads(path.read_text())["results"]["table"].items():
        mine = entries[compare.SKIP]["seeds"]["test"]
        found = {o: compared(mine, entries[o]["seeds"]["test"], margin=MARGIN) for o in compare.REFERENCES if o in entries}
        out[count] = {name: x._asdict() for name, x in found.items()}
        print(f"{path.stem:<26}{count:>4} per class  " + "  ".join(f"- {o[7:]} {shown(x)}" for o, x in found.items()))
    with tempfile.TemporaryDirectory() as folder:
        bench, options = bench_of(compare, f"few_labels.py:{path.stem}", folder)
        dataset, flops = bench.subsets.get(options["shots"][-1], 0), {}
        for method in options["methods"]:
            program = bench.program(method, options["layer"], dataset)
            flops[method] = program.expected_flops(dataset.image_shape) if program.plan.trains else None
    print(f"{path.stem:<26}FLOPs a step  " + "  ".join(f"{m[7:]} {x:.3g}" for m, x in flops.items() if x))
    return {**out, "flops_per_step": flops}


def layers(record: dict[str, Any]) -> dict[str, Any]:
    """Regrets of every rule of today on the recorded accuracies."""
    name, kept = record["name"], record["results"]
    with tempfile.TemporaryDirectory() as folder:
        bench, options = bench_of(choose_layer, f"choose_layer.py:{name}", folder)
        wanted, names, shots = all_named(options["scores"]), tuple(kept["blocks"]), options["shots"]
        seeds = range(len(kept["scores"]))
        found = [blocks.block_scores(bench, names, wanted, shots, seed)["values"] for seed in seeds]
        costs = blocks.block_costs(bench, options["method"], names, shots)
    for ours, theirs in zip(found, kept["scores"], strict=True):
        for block, values in theirs.items():
            if not np.isclose(ours[block]["cdnv"], values["cdnv"], rtol=1e-2):
                raise SystemExit(f"{name}, {block}: CDNV is {ours[block]['cdnv']}, the record has {values['cdnv']}")
    cannot = ranking.without_value(found, wanted)
    rules = [rule for rule in ranking.rules(wanted) if rule not in cannot]
    picks = {rule: [ranking.choose(rule, f, bench.network.model, wanted) for f in found] for rule in rules}
    picks["nc1_narrow_too"] = [min(values, key=lambda b, v=values: v[b]["nc1"]) for values in kept["scores"]]
    out = regret.regrets(kept["tuned"], picks)
    return {"scores": found, "picks": picks, "costs": costs, **out}


def pooled(studies: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`regret.over_studies`, printed."""
    out = regret.over_studies([s["regret"] for s in studies.values()], MARGIN)
    best = next(iter(out))
    for rule, x in out.items():
        against = x["against_best"]
        print(
            f"{rule:<24} {intervals.percent(x['regret']):<24} worst {100 * x['worst']:.1f}   {x['studies']} studies   "
            f"more than {best}: {'-' if rule == best else shown(Comparison(**against))}"
        )
    return out


def main() -> None:
    """Prints the comparisons; writes JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("methods", "blocks"))
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.what == "methods":
        found = {path.stem: methods(path) for path in args.records}
    else:
        found = {record["name"]: layers(record) for path in args.records for record in json.loads(path.read_text())}
        found = {"studies": found, "pooled": pooled(found)}
    if args.out:
        common.write(args.out, margin=MARGIN, found=found)


if __name__ == "__main__":
    main()
