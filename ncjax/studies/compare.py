"""Methods side by side on few labels: nested subsets, paired seeds, the same search for every method."""

from __future__ import annotations

from typing import Annotated, Any

from ncjax.core.errors import UserError
from ncjax.evidence import intervals
from ncjax.networks import card as cards
from ncjax.runs.run import Run
from ncjax.transfer import few_shot, grid_search


def summarise(cells: list[dict[str, Any]], hyper: dict[str, float]) -> dict[str, Any]:
    """Means over seeds with 95 % t intervals, and what it cost."""
    def over(value: Any) -> list[float] | None:
        values = [value(c) for c in cells]
        return None if any(v is None for v in values) else list(intervals.mean(values))

    first = cells[0]
    return {
        "hyper": hyper or {"l2": [c["l2"] for c in cells]},
        **{name: over(lambda c, name=name: c[name]) for name in ("test", "val", "train", "nc1_train", "nc1_test",
                                                                 "nc1_over_floor_train", "nc1_over_floor_test")},
        "gap": over(lambda c: c["train"] - c["test"]), "tuned": first["tuned"], "total": first["total"],
        "share": first["tuned"] / first["total"], "seconds": over(lambda c: c["seconds"]),
        "flops_per_step": first.get("flops_per_step"),
        "seeds": {"test": [c["test"] for c in cells], "val": [c["val"] for c in cells]},
    }


def run(
    *,
    run: Run,
    init: str,
    data: str = "embedded.digits",
    methods: list[str] = ["tuning.probe", "tuning.layer_ft", "tuning.layer_ft_scaled", "tuning.scl_ft",  # noqa: B006
                          "tuning.full_ft"],
    references: list[str] = ["tuning.layer_ft_scaled", "tuning.full_ft"],  # noqa: B006
    layer: str | None = None,
    shots: list[int] = [5, 20],  # noqa: B006
    **options: Annotated[Any, cards.load, few_shot.target, grid_search.searched, few_shot.budget],
) -> dict[str, Any]:
    """Compares methods at the same budget, every choice made on validation, and the test set looked at once a run.

    Args:
      run: where it happens; a sweep that was stopped goes on with the run that was under way.
      init: the network, see `card.load`.
      data: the target, see `data.load`.
      methods: functions of `ncjax.tuning`.
      references: methods that every other one is compared with, seed by seed.
      layer: blocks for the methods that take one; None for their own choice.
      shots: training images a class, nested; 0 for all. Validation has as many at most, so the labels are twice that.
      **options: of `card.load`, `few_shot.target`, `grid_search.searched` and `few_shot.budget`.
    """
    for name in references:
        if name not in methods:
            raise UserError(f"references: {name} is not among the methods {', '.join(methods)}")
    seeds = options["seeds"]
    if seeds < 2:
        raise UserError(f"seeds={seeds}: an interval over seeds needs two")
    if not shots or not methods:
        raise UserError(f"shots={shots}, methods={methods}: at least one of each")
    lab = few_shot.Lab(run, init=init, data=data, options=options)
    for count in reversed(shots):  # nothing is trained before every method and every subset is known to be possible
        dataset = lab.dataset(count, 0)
    run.announce(dataset, lab.describe())
    for method in methods:
        tuned = lab.plan(method, layer, dataset, 0).tuned
        run.say(f"  {method:<24} tunes {', '.join(tuned)}")
    table: dict[str, dict[str, Any]] = {}
    for count in shots:
        for method in methods:
            cells, hyper = lab.search(method, layer=layer, shots=count)
            entry = table.setdefault(str(count), {})[method] = summarise(cells, hyper)
            run.say(f"{count:>4} a class  {method:<24} test {intervals.percent(entry['test'])}  train-test "
                    f"{intervals.percent(entry['gap'])}  {entry['seconds'][0]:.0f} s  " + "  ".join(
                        f"{k} {v:g}" for k, v in hyper.items()))
        for entry in table[str(count)].values():
            entry["paired"] = {
                name: list(intervals.paired(entry["seeds"]["test"], table[str(count)][name]["seeds"]["test"]))
                for name in references}
    run.table(f"test accuracy on {data}, mean over {seeds} seeds with 95 % t intervals", ["method", "tuned", *(
        f"{count} a class" for count in shots)], [
            [method, f"{100 * table[str(shots[0])][method]['share']:.2f} %",
             *(intervals.percent(table[str(count)][method]["test"]) for count in shots)] for method in methods])
    dataset = lab.dataset(shots[-1], 0)
    return {"data": dataset.describe(), "network": lab.describe(),
            "methods": methods, "references": references, "shots": shots, "table": table}
