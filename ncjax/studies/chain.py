"""Several studies, one after another, and one report over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ncjax import report
from ncjax.core import hosts
from ncjax.core.errors import UserError
from ncjax.core.resolve import short_name
from ncjax.runs.execute import execute
from ncjax.runs.run import Run
from ncjax.studies import module_of


def run(*, run: Run, steps: dict[str, Any], title: str = "ncjax") -> dict[str, Any]:
    """Runs `steps` in order, each in a folder of its own below the workdir.

    A finished step is not run again, so a chain that was stopped goes on where it was.

    Args:
      run: where it happens.
      steps: {name: {"study": "pretrain", ...the study's arguments}}; an `init` of "@name" means that step's result.
      title: of the report.
    """
    workdirs = []
    for number, (name, step) in enumerate(steps.items(), 1):
        config = {k: v for k, v in step.items() if k != "study"}
        init = config.get("init")
        if isinstance(init, str) and init.startswith("@"):
            if init[1:] not in list(steps)[: number - 1]:
                raise UserError(f"step {name!r}: init={init!r} names no earlier step")
            config["init"] = str(run.workdir / init[1:])
        run.say(f"\n[{number}/{len(steps)}] {name}: {step['study']}")
        workdir = run.workdir / name
        own = Run(workdir, console=run.console)
        execute(module_of(step["study"]).run, step["study"], config, own)
        if signum := own.interrupted():  # asked for in the step's last moments, when there was nothing left to stop
            raise KeyboardInterrupt(signum)
        workdirs.append(workdir)
    path = hosts.first(lambda: str(report.write(workdirs, run.workdir, title=title)))
    run.say(f"\nreport: {path}")
    return {"steps": list(steps), "report": Path(path).name}


def tuned_by(methods: Sequence[str], **common: Any) -> dict[str, dict[str, Any]]:
    """Steps of a chain that fine-tune by one method each, named after it.

    Args:
      methods: names such as "tuning.scl_ft".
      **common: keys of `studies.finetune` that they share.
    """
    return {short_name(method): {"study": "finetune", "method": method, **common} for method in methods}
