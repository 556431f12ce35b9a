"""Which block to tune? Ranks them before any fine-tuning; on request tunes some, or all, and says what rules lose."""

from __future__ import annotations

from typing import Annotated, Any

from ncjax.core.errors import UserError
from ncjax.core.resolve import pick
from ncjax.evidence import intervals
from ncjax.networks import card as cards
from ncjax.runs.run import Run
from ncjax.transfer import few_shot, grid_search, ranking


def regrets(tuned: dict[str, list[float]], picks: dict[str, list[str]]) -> dict[str, Any]:
    """What each rule loses in test accuracy against the best block in hindsight, seed by seed, with 95 % t intervals.

    Args:
      tuned: {block: test accuracy by seed}.
      picks: {rule: its block by seed}. "random" is added: the mean over blocks.
    """
    best = max(tuned, key=lambda b: sum(tuned[b]))
    seeds = range(len(tuned[best]))
    lost = {rule: [tuned[best][s] - tuned[blocks[s]][s] for s in seeds] for rule, blocks in picks.items()}
    lost["random"] = [tuned[best][s] - sum(x[s] for x in tuned.values()) / len(tuned) for s in seeds]
    return {"best": best, "by_seed": lost, "regret": {rule: list(intervals.mean(x)) for rule, x in lost.items()}}


def _show_scores(run: Run, data: str, found: ranking.Scores, picks: dict[str, list[str]],
                 costs: dict[str, dict[str, float]]) -> None:
    columns = {"nc1_over_floor": "NC1/floor", "cdnv": "CDNV", "probe_accuracy": "probe val", "logme": "LogME", "rgn": "RGN",
               "condition_number": "condition"}
    run.table(f"blocks on {data}, seed 0", ["block", "tuned", "FLOPs", *columns.values()], [
        [b, f"{100 * costs[b]['share']:.2f} %", f"{100 * costs[b]['flops']:.1f} %",
         *("-" if found[b][name] is None else f"{found[b][name]:.4g}" for name in columns)] for b in found])
    run.say("tuned: share of parameters; FLOPs: a training step above the kept prefix, as a share of full fine-tuning's")
    for rule, blocks in picks.items():
        run.say(f"  {rule:<17} {blocks[0]:<10} {ranking.MEANING[rule]}")


def _costs(lab: few_shot.Lab, method: str, names: tuple[str, ...], shots: int) -> dict[str, dict[str, float]]:
    """Share of parameters tuned, and of full fine-tuning's FLOPs a step, for every block."""
    dataset, out = lab.dataset(shots, 0), {}
    whole = lab.program("tuning.full_ft", None, dataset).expected_flops(dataset.image_shape)
    for block in names:
        program = lab.program(method, block, dataset)
        tuned, total = program.plan.share()
        out[block] = {"share": tuned / total, "flops": program.expected_flops(dataset.image_shape) / whole}
    return out


def run(
    *,
    run: Run,
    init: str,
    data: str = "embedded.digits",
    rule: str = "logme",
    method: str = "tuning.scl_ft",
    blocks: str | None = None,
    tune: str = "none",
    top: int = 3,
    shots: int = 20,
    **options: Annotated[Any, cards.load, few_shot.target, grid_search.searched, few_shot.budget],
) -> dict[str, Any]:
    """Ranks the blocks of a network for a target, and on request checks the ranking by tuning.

    Args:
      run: where it happens; a stopped run goes on.
      init: the network, see `card.load`.
      data: the target, see `data.load`.
      rule: what ranks: one of `ranking.RULES`; docs/results/choose_layer has what they lost on the data sets at hand.
      method: how a block is tuned, a function of `ncjax.tuning` that tunes one.
      blocks: candidates, a pattern; None for all residual or encoder blocks.
      tune: "none", "top" (the rule's first `top` on seed 0) or "all".
      shots: as in `compare`.
      **options: of `card.load`, `few_shot.target`, `grid_search.searched` and `few_shot.budget`, for every block alike.
    """
    if tune not in ("none", "top", "all"):
        raise UserError(f"tune={tune!r}: 'none', 'top' or 'all'")
    seeds = options["seeds"]
    if tune != "none" and seeds < 2:
        raise UserError(f"seeds={seeds}: an interval over seeds needs two")
    lab = few_shot.Lab(run, init=init, data=data, options=options)
    run.announce(lab.dataset(shots, 0), lab.describe())
    names = ranking.candidates(lab.network, blocks)
    found = []
    for seed in range(seeds if tune != "none" else 1):
        key = {"scores": "all", "shots": shots, "seed": seed, **lab.identity(shots, seed)}
        found.append(run.once(key, lambda seed=seed: ranking.scores(
            lab.network, lab.variables, lab.dataset(shots, seed), lab.devices, names, batch_size=lab.budget.batch_size)))
    ranked = ranking.ordered(rule, found[0], lab.network)
    picks = {name: [ranking.choose(name, f, lab.network) for f in found] for name in ranking.RULES}
    costs = run.once({"costs": method, "shots": shots, **lab.identity(shots, 0)},
                     lambda: _costs(lab, method, names, shots))
    _show_scores(run, data, found[0], picks, costs)
    known = {"init": init, "data": data, "method": method, "layer": ranked[0], "n_per_class": shots or None,
             **{k: v for k, v in pick(cards.load, options).items() if v not in (None, "last", [])}}
    run.say(f"rule {rule} ({ranking.MEANING[rule]}): tune {ranked[0]}, then {', '.join(ranked[1:3])}; for example\n"
            f"  --config=configs/finetune.py:{','.join(f'{k}={v}' for k, v in known.items() if v is not None)}")
    out = {"data": lab.dataset(shots, 0).describe(), "network": lab.describe(),
            "blocks": list(names), "rule": rule, "choice": ranked[0],
           "ranked": ranked, "scores": found, "picks": picks, "costs": costs, "meaning": ranking.MEANING}
    if tune == "none":
        return out
    cells = {}
    for block in names if tune == "all" else ranked[:top]:
        cells[block], hyper = lab.search(method, layer=block, shots=shots)
        run.say(f"{block:<10} test {intervals.percent(intervals.mean([c['test'] for c in cells[block]]))}  "
                + "  ".join(f"{k} {v:g}" for k, v in hyper.items()))
    tuned = {block: [c["test"] for c in many] for block, many in cells.items()}
    out |= {"tuned": tuned, "accuracy": {b: list(intervals.mean(x)) for b, x in tuned.items()},
            "nc1_test": {b: list(intervals.mean([c["nc1_test"] for c in many])) for b, many in cells.items()}}
    if tune == "all":
        out |= regrets(tuned, picks)
        order = sorted(out["regret"], key=lambda r: out["regret"][r][0])
        run.table(f"best in hindsight: {out['best']}; what each rule loses in test accuracy, {seeds} seeds", [
            "rule", "chooses", "regret, 95 % t interval"], [
            [r, ", ".join(dict.fromkeys(picks.get(r, ["any"]))), intervals.percent(out["regret"][r])] for r in order])
    return out
