"""Does less collapse in pre-training transfer better? Variants of a recipe, paired seeds, the same targets for all.

Experiments E4 to E7, claims C3 to C9 and C17.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.mesh import make
from ncjax.core.options import Overrides
from ncjax.core.roles import MODEL
from ncjax.core.values import COUNT, NATURAL, SHARE, Items, OneOf, Range, between
from ncjax.data import Data
from ncjax.data import load as load_data
from ncjax.evidence import intervals
from ncjax.evidence.intervals import signed
from ncjax.evidence.paper import Evidence
from ncjax.optim import Optim
from ncjax.report import figures, outside
from ncjax.report.collect import Finished
from ncjax.report.sections import Section, file_stem
from ncjax.report.tables import Cell, Table, of_rows, text
from ncjax.report.variants import on_source, on_targets
from ncjax.runs.run import Run
from ncjax.training.pretraining import Pretraining, Regime
from ncjax.transfer import source_claims
from ncjax.transfer.reading import Reading, check_shots, target_of
from ncjax.transfer.variants import recipe_of, sweep

RULES = (
    "Rules, fixed before the run. C3, and with it the claim of the sweep, which it would explain: among variants within "
    "{1:g} points of the best source accuracy, supported if the 95 % interval of Spearman's correlation is above 0, "
    "contradicted if below, not supported if below {0:g}, else undecided. C17: the same of the difference of two "
    "correlations. Intervals resample variants and, within them, seeds. Contrasts are paired by seed: supported where the "
    "less collapsed of two variants transfers better, both beyond 95 % t intervals, contradicted where it transfers worse."
)
RULES_OF_A_RUN = (
    "Rules, fixed before the run. The best epoch is that of the targets' validation images, differences are of test "
    "accuracy, paired by seed. C4: supported where the best beats the initialisation beyond the 95 % interval, "
    "contradicted where the initialisation beats it, or is the best and beats the last. C3: supported where the best beats "
    "a more collapsed last epoch, not supported where the last is the best. Else undecided."
)
RECIPE = ("model", "projection_layers", *(k for k in Regime._fields if k != "seed"), *Optim._fields)


def run(
    *,
    run: Run,
    recipes: Annotated[dict[str, Any], Overrides(*RECIPE)],
    targets: Annotated[list[str], Items(least=1, distinct=True)],
    data: Data = Data(),
    model: Annotated[str, MODEL] = "models.resnet.resnet14(stem_stride=2)",
    projection_layers: Annotated[int, between(0, 5)] = 0,
    regime: Regime = Regime(),
    optim: Optim = Optim(),
    seeds: Annotated[int, COUNT] = 5,
    read: Annotated[list[int], NATURAL, Items(distinct=True)] = [],
    reading: Reading = Reading(),
    claim: Annotated[str, OneOf(*source_claims.CLAIMS)] = "C3",
    contrasts: list[str] = [],
    comparable: Annotated[float, SHARE] = 0.02,
    weakest: Annotated[float, Range("from 0 to 1, a correlation", 0, 1)] = 0.3,
) -> dict[str, Any]:
    """Pre-trains every variant with every seed, and reads each network; a stopped sweep goes on where it was.

    Networks stay below `networks/` in the workdir, an `init` for any study.

    Args:
      run: where it happens.
      recipes: {name: {key: value}}, the variants: changes of the base recipe's model, projection_layers and training.
      targets: data sets as for `data.Data.data`.
      data: the source.
      model: its model's name.
      projection_layers: of its projection head, discarded at transfer.
      regime: of the base recipe; its seed is the first of them.
      optim: how leaves move there.
      seeds: of each variant: initialisation, order and augmentation; all variants share them.
      read: epochs at which networks are read, 0 for the initialisation; empty for the last alone.
      reading: what is read.
      claim: what the sweep is about, beside C3.
      contrasts: pairs of variants to compare seed by seed, "C9: nt_xent - cross_entropy".
      comparable: the rule for C3, fixed before the run: variants within so much of the best source accuracy are compared.
      weakest: the rule for verdicts, fixed before the run: a correlation in the claimed direction is "supported" if its
        95 % interval, over variants and seeds, is above 0, "contradicted" if it is below, "not supported" if it is below
        this, else "undecided".
    """
    _check(recipes, read, claim, contrasts)
    mesh, source = make(), load_data(data)
    run.announce(source)
    base = {"model": model, "projection_layers": projection_layers, **regime._asdict(), **optim._asdict()}
    built = {name: recipe_of(base | changes) for name, changes in recipes.items()}
    for name, recipe in built.items():
        if late := [epoch for epoch in read if epoch > recipe.regime.epochs]:
            raise UserError(f"read={list(read)}: {late[0]} is after the last of {recipe.regime.epochs} epochs of {name}")
        first = Pretraining(recipe, source, mesh)
        first.check()
    known = {name: target_of(first.card, name, reading) for name in targets}
    for name, dataset in known.items():
        run.announce(dataset._replace(name=f"target {name}"))
    check_shots(reading, {"the source": source, **known})
    del first
    each = range(regime.seed, regime.seed + seeds)
    cells, diverged = sweep(run, built, each, source=source, targets=known, read=read, reading=reading)
    points = {_point(n, e, read): many for n, by_epoch in cells.items() for e, many in by_epoch.items()}
    points, dead = source_claims.defined(points)
    if not points:
        raise UserError("no run of any variant ended with features that can be measured; try a lower lr, or a warm-up")
    out: dict[str, Any] = {
        "data": {**source.describe(), **{f"{t} {s}": x for t, d in known.items() for s, x in d.describe().items()}},
        "variants": recipes,
        "diverged": diverged,
        "dead": dead,
        "points": {name: source_claims.entry(many) for name, many in points.items()},
        "runs": {name: [_short(cell) for cell in many] for name, many in points.items()},
        "targets": targets,
        "predictors": {name: label for name, (label, _) in source_claims.PREDICTORS.items()},
        "claims": source_claims.CLAIMS,
    }
    if len(read) > 1:
        out["over_run"] = {
            name: source_claims.over_a_run(by_epoch) for name, by_epoch in cells.items() if len(by_epoch) > 1
        }
        out["verdicts"] = {f"{k} ({n})": v for n, x in out["over_run"].items() for k, v in x["verdicts"].items()}
    else:
        out |= source_claims.summary(points, targets, claim=claim, within=comparable, weakest=weakest)
    out["contrasts"] = [source_claims.contrast(points, each) for each in contrasts]
    out["verdicts"] |= {f"{c['claim']}, {c['pair'][0]} - {c['pair'][1]}": c["word"] for c in out["contrasts"]}
    _show(run, out)
    return out


def _check(recipes: dict[str, Any], read: Sequence[int], claim: str, contrasts: Sequence[str]) -> None:
    """Refuses what cannot be judged, before anything is trained."""
    if (claim == "C4") != (len(read) > 1):
        raise UserError(
            f"claim={claim}, read={list(read)}: C4 is judged along a run, by several epochs, and is all that is"
        )
    if contrasts and len(read) > 1:
        raise UserError("contrasts: variants are compared at their last epoch; leave read empty")
    for each in contrasts:
        source_claims.parse_contrast(each, recipes)


def _point(name: str, epoch: int, read: Sequence[int]) -> str:
    return f"{name}, epoch {epoch}" if len(read) > 1 else name


def _short(cell: dict[str, Any]) -> dict[str, Any]:
    """What a figure needs of a run."""
    layers = cell["source"]["layers"]["penultimate"]
    return {
        "seed": cell["seed"],
        "accuracy": cell["source"]["accuracy"]["test"],
        "nc1": layers["train"]["nc1"],
        "nc1_test": layers["test"]["nc1"],
        "targets": {t: {"probe": x["probe"], "nc1": x["train"]["nc1"]} for t, x in cell["targets"].items()},
    }


def _show(run: Run, out: dict[str, Any]) -> None:
    targets = out["targets"]
    run.table(
        "variants: means over seeds with 95 % t intervals",
        ["variant", "source test", "NC1 train", *targets],
        [
            [
                name,
                intervals.percent(e["accuracy"]["test"]),
                intervals.digits(e["source"]["penultimate"]["train"]["nc1"]),
                *(intervals.percent(e["targets"][t]["probe"]) for t in targets),
            ]
            for name, e in out["points"].items()
        ],
    )
    if "correlations" in out:
        rows = [
            [
                out["predictors"][name],
                *(signed(found[t]) for t in ("mean", *targets)),
                signed(out["among_comparable"][name]),
            ]
            for name, found in out["correlations"].items()
        ]
        run.table("Spearman's correlation with the probe", ["predictor", "mean", *targets, "among comparable"], rows)
    run.say("  ".join(f"{claim}: {word}" for claim, word in out["verdicts"].items()))


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every sweep."""
    sections = []
    for run in runs:
        r, stem, c = run.results, file_stem("source", run.name), run.config
        rule = RULES_OF_A_RUN if "over_run" in r else RULES.format(c["weakest"], 100 * c["comparable"])
        judged = list(_judged(run))
        verdicts = Table(f"verdicts_{stem}", rule, ["claim", "says", "found", "verdict"], judged)
        intro = (
            f"Variants: {len(r['variants'])}, with {c['seeds']} seeds each. NC1 at the penultimate layer, which "
            "transfer keeps, on the source's training images; smaller is more collapsed. A correlation over variants of "
            "one recipe says nothing of other recipes; read it beside source accuracy and kNN, which predict too."
        )
        for why, found in (("diverged", r["diverged"]), ("collapsed to nothing (dead)", r["dead"])):
            if lost := {name: n for name, n in found.items() if n}:
                intro += f" Left out, for they {why}: " + ", ".join(f"{n} of {name}" for name, n in lost.items()) + "."
        tables = [verdicts, on_source(run, stem), on_targets(run, stem)]
        if "correlations" in r:
            tables.insert(1, _correlations(run, stem))
        drawn = [
            (
                "Transfer over collapse on the source: a small mark a run, a large one a variant with 95 % intervals over "
                "seeds.",
                _scatter(run, stem),
            )
        ]
        points = {name: {t: x["auroc"] for t, x in e["targets"].items()} for name, e in r["points"].items()}
        if blocks := outside.blocks_of(points):
            caption = f"AUROC of {c['data']} against the targets after each block, mean over seeds: a line a variant."
            drawn.append((caption, outside.curves(points, blocks, f"outside_{stem}")))
            tables.append(outside.table(points, blocks, f"outside_{stem}", f"{run.name}/results.json: points."))
        title = "Does less collapse in pre-training transfer better?"
        sections.append(Section(f"{title} ({run.name})", intro, drawn, tables, tuple(map(_told, judged))))
    return sections


def _judged(run: Finished) -> Any:
    """Rows of the verdicts: claim, sentence, number, word."""
    r, at = run.results, f"{run.name}/results.json"
    for key, word in r["verdicts"].items():
        claim = key.partition(",")[0].partition(" ")[0]
        found = text("–")
        if "correlations" in r and key in ("C3", claim) and claim != "C17":
            found = text(
                f"{signed(r['among_comparable']['nc1'])}, given source accuracy {signed(r['given_source_accuracy'])}"
            )
        elif key == "C17":
            found = text(signed(r["target_over_source"]))
        elif "over_run" in r and "(" in key:
            x = r["over_run"][key.partition("(")[2].rstrip(")")]
            end = "first" if claim == "C4" else "last"
            found = text(f"epoch {x['best']} - {x[end]}: {intervals.points(x[f'over_{end}'], sign=True)} points")
        for c in r["contrasts"]:
            if key == f"{c['claim']}, {c['pair'][0]} - {c['pair'][1]}":
                found = text("–" if c["accuracy"] is None else _pair(c))
        yield [text(key), text(r["claims"][claim]), found._replace(source=at), text(word)]


def claims(runs: Sequence[Finished]) -> list[Evidence]:
    """What finished sweeps say of the paper's claims."""
    out = []
    for run in runs:
        source = f"{run.config['data']} to {', '.join(run.config['targets'])}"
        for key, _, found, word in _judged(run):
            claim, _, rest = key.text.replace(" (", ", (").replace(" within", ", within").partition(", ")
            out.append(Evidence(claim, f"{source}, {rest}" if rest else source, found.text, word.text))
    return out


def _told(row: Sequence[Cell]) -> str:
    claim, says, found, word = (cell.text for cell in row)
    return f"{claim}, {says}: {word}" + ("." if found == "–" else f" ({found}).")


def _pair(c: dict[str, Any]) -> str:
    return f"log NC1 {intervals.digits(c['log_nc1'])}, {intervals.points(c['accuracy'], sign=True)} points"


def _correlations(run: Finished, stem: str) -> Table:
    r, at = run.results, f"{run.name}/results.json: "
    near = len(r["comparable"])

    def cell(found: Sequence[float] | None, source: str) -> Cell:
        return Cell(None if found is None else found[0], signed(found), at + source)

    rows = [
        [
            ("predictor", text(r["predictors"][name])),
            *((t, cell(found[t], f"correlations.{name}.{t}")) for t in ("mean", *r["targets"])),
            (f"mean, {near} comparable", cell(r["among_comparable"][name], f"among_comparable.{name}")),
        ]
        for name, found in r["correlations"].items()
    ]
    caption = (
        f"Spearman's correlation with the probe's test accuracy over {len(r['points'])} variants; the last column over the "
        f"{near} of comparable source accuracy ({', '.join(r['comparable'])})."
    )
    return of_rows(f"correlations_{stem}", caption, rows)


def _scatter(run: Finished, stem: str) -> figures.Drawn:
    """Test accuracy of the probe over NC1 of the source, train: a panel a target."""
    r = run.results
    with figures.panels(len(r["targets"]), 2, 3.2) as (figure, axes):
        for axis, target in zip(axes, r["targets"], strict=True):
            for i, (name, many) in enumerate(r["runs"].items()):
                colour, mark = figures.COLOURS[i % len(figures.COLOURS)], "osD^v"[i // len(figures.COLOURS) % 5]
                x, y = ([one["nc1"] for one in many], [100 * one["targets"][target]["probe"] for one in many])
                if any(v is None for v in x):
                    continue
                axis.plot(x, y, mark, ms=2.5, alpha=0.5, color=colour)
                (mx, *ex), (my, *ey) = intervals.mean(np.log(x)), intervals.mean(y)
                known = len(many) > 1
                axis.errorbar(
                    [np.exp(mx)],
                    [my],
                    [[my - ey[0]], [ey[1] - my]] if known else None,
                    [[np.exp(mx) - np.exp(ex[0])], [np.exp(ex[1]) - np.exp(mx)]] if known else None,
                    fmt=mark,
                    ms=6,
                    lw=0.8,
                    color=colour,
                    label=name,
                )
            figures.log_axis(axis, "x")
            axis.set(title=target, xlabel="source NC1, train")
        axes[0].set_ylabel("probe, test accuracy, %")
        figures.legend_below(figure, axes[0])
        return figures.Drawn(f"scatter-{stem}", figure)
