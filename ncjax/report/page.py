"""The page: sections of text, figures and tables, rendered into one file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2

from ncjax.core.files import replacing
from ncjax.report import backbones, figures, sections, sweeps
from ncjax.report.collect import collect
from ncjax.report.tables import save, to_latex


def write(workdirs: Sequence[str | Path], out: str | Path, *, title: str, archive: bool = False) -> Path:
    """Writes `out/report.html`, and every table as `out/tables/NAME.csv` and `.tex`.

    Args:
      workdirs: folders of finished runs, or of chains.
      out: where to write.
      title: heading of the page.
      archive: also write every run's record into `out/results.json` and every figure as `out/figures/NAME.png`.

    Raises:
      UserError: a folder holds no finished run.
    """
    runs = collect(workdirs)
    by_study = {study: [run for run in runs if run.study == study] for study in dict.fromkeys(r.study for r in runs)}
    pretrained = [run for run in by_study.get("pretrain", []) if run.config["measure_every"]]
    said = [sections.pretraining(pretrained)] if pretrained else []
    said += sections.layers(by_study.get("measure", []))
    said += sections.tuning(by_study.get("finetune", []))
    said += sweeps.methods(by_study.get("compare", []))
    said += sweeps.blocks(by_study.get("choose_layer", []))
    said += backbones.backbones(by_study.get("backbones", []))
    said.append(sections.provenance(runs))
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for section in said:
        for table in section.tables:
            save(table, out / "tables")
        for _, drawn in section.figures:
            if archive:
                figures.png(drawn, out / "figures")
    if archive:
        records = [{k: v for k, v in run._asdict().items() if k != "rows"} for run in runs]
        (out / "results.json").write_text(json.dumps(records, indent=1))
    template = resources.files("ncjax.report").joinpath("template.html").read_text()
    html = jinja2.Environment(autoescape=True).from_string(template).render(
        title=title, sections=said, to_latex=to_latex, svg=figures.svg, count=len(runs),
        seconds=sum(run.seconds for run in runs))
    with replacing(out / "report.html") as file:
        file.write(html.encode())
    return out / "report.html"
