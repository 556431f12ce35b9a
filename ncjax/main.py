"""The command: `python -m ncjax.main --config=configs/pretrain.py [--config.key=value ...] [--workdir=DIR]`."""

from __future__ import annotations

from ncjax.core import memory

if __name__ == "__main__":
    memory.huge_pages()

import argparse
import errno
import re
import sys
import traceback
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ncjax import config as door
from ncjax import conv, report
from ncjax.core.errors import UserError, nearest
from ncjax.runs.execute import execute
from ncjax.runs.run import Run
from ncjax.studies import module_of
from ncjax.training.loop import Interrupted


def _parse(argv: list[str]) -> tuple[argparse.Namespace, ConfigDict]:
    """The flags and the config they choose, overrides applied.

    Raises:
      UserError: an unknown flag, key or file, or a value of the wrong type.
    """
    parser = argparse.ArgumentParser(prog="python -m ncjax.main", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", help="config file, with an argument after a colon if wanted: configs/pretrain.py:smoke")
    parser.add_argument("--workdir", help="where the run lives; default runs/<config name>")
    parser.add_argument("--distributed", action="store_true", help="call jax.distributed.initialize() (TPU pods, SLURM)")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    parser.exit_on_error = False
    overrides = [word for word in argv if word.startswith("--config.")]
    try:
        args, unknown = parser.parse_known_args([word for word in argv if word not in overrides])
    except argparse.ArgumentError as e:
        raise UserError(str(e)) from None
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        known = ("config", "workdir", "distributed", "debug")
        raise UserError(f"cannot read {unknown[0]!r}; {nearest(name, known)} (a config key is --config.{name}=...)")
    if args.config is None:
        raise UserError("say what to run, for example: python -m ncjax.main --config=configs/quickstart.py")
    config = door.load(args.config)
    for word in overrides:
        dotted, equals, text = word.removeprefix("--config.").partition("=")
        if not equals:
            raise UserError(f"cannot read {word!r}: write --config.{dotted}=value")
        door.override(config, dotted, text)
    return args, config


def _workdir(args: argparse.Namespace) -> Path:
    path, _, arg = args.config.partition(":")
    before, equals, after = arg.partition("=")  # names of variants come before keys, "smoke" comes anywhere
    first = before.rpartition(",")[0] if equals else before
    words = [*first.split(","), *(["smoke"] if "smoke" in re.split(r"\s*,\s*", after.strip()) else [])]
    return Path(args.workdir or Path("runs") / "_".join([Path(path).stem, *filter(None, map(str.strip, words))]))


def run(argv: list[str]) -> None:
    """Parses `argv`, checks everything that can be checked, then runs the study."""
    args, config = _parse(argv)
    study, values = door.plain(config)
    if args.distributed:
        jax.distributed.initialize()
    workdir = _workdir(args)
    here = Run(workdir)
    here.say(f"{conv.header()}; {memory.pages()} pages of memory")
    record = execute(module_of(study).run, study, values, here)
    if here.writes and study != "chain":
        here.say(f"report: {report.write([workdir], workdir, title=workdir.name)}")
    here.say(f"done in {record['seconds']:.0f} s; results: {workdir / 'results.json'}")


def _no_space(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in str(error)


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 the user can mend it (one line says how), 130 stopped by Ctrl-C, 1 a bug."""
    argv = sys.argv[1:] if argv is None else argv
    again = "run the same command again to go on"
    try:
        run(argv)
        return 0
    except UserError as e:
        message, code = str(e).replace("\n", " "), 2
    except Interrupted as e:
        message, code = f"stopped at step {e.step}, saved; {again}", 130
    except KeyboardInterrupt:
        message, code = f"stopped at once; the last checkpoint is kept; {again}", 130
    except Exception as e:
        if "--debug" in argv:
            raise
        if _no_space(e):
            message, code = f"no space left on the disk; free some and {again}; the last checkpoint is kept", 2
        elif isinstance(e, OSError):
            message, code = f"{e.strerror or e}: {e.filename}", 2
        else:
            traceback.print_exc()
            message, code = "this is a bug in ncjax; please report it with the lines above", 1
    print(f"ncjax: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
