"""The command: `python -m ncjax.main --config=configs/pretrain.py [--config.key=value ...] [--workdir=DIR]`."""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from ncjax import config as door
from ncjax.lookup import resolve
from ncjax.rundir import Run, execute
from ncjax.train import Interrupted
from ncjax.types import UserError, nearest

FLAGS = ("config", "workdir", "distributed", "debug")


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "Config file, with an argument after a colon if wanted.",
                                    flag_values=values)
    flags.DEFINE_string("workdir", None, "Where the run lives; default runs/<config name>.", flag_values=values)
    flags.DEFINE_bool("distributed", False, "Call jax.distributed.initialize() (TPU pods, SLURM).", flag_values=values)
    flags.DEFINE_bool("debug", False, "Show the whole traceback of an error.", flag_values=values)
    return values


def _check_names(argv: list[str]) -> None:
    """Flags and config files that do not exist, before absl sees them."""
    for word in argv[1:]:
        name, _, value = word.lstrip("-").partition("=")
        head = name.split(".")[0]
        if word.startswith("-") and head.removeprefix("no") not in FLAGS and head not in FLAGS:
            raise UserError(f"no flag --{name}; {nearest(head, FLAGS)} (a config key is --config.{name}=...)")
        if not word.startswith("-"):
            raise UserError(f"cannot read {word!r}: flags look like --config=configs/pretrain.py")
        if name == "config" and not Path(value.partition(":")[0]).is_file():
            raise UserError(f"no config file {value.partition(':')[0]!r}")
    if not any(w.lstrip("-").startswith("config=") for w in argv[1:]):
        raise UserError("say what to run, for example: python -m ncjax.main --config=configs/quickstart.py")


def _parse(argv: list[str]) -> flags.FlagValues:
    _check_names(argv)
    overrides = [w for w in argv if w.lstrip("-").startswith("config.")]
    values = _flags()
    values([argv[0], *(w for w in argv[1:] if w not in overrides)])
    for word in overrides:
        dotted, equals, text = word.lstrip("-").removeprefix("config.").partition("=")
        _, hint = door.find(values.config, dotted)
        if not equals:
            raise UserError(f"cannot read {word!r}: write --config.{dotted}=value")
        *folders, key = dotted.split(".")
        target = values.config
        for folder in folders:
            target = target[folder]
        with target.ignore_type():
            target[key] = door.read_value(key, text, hint)
    return values


def _workdir(values: flags.FlagValues) -> Path:
    if values.workdir:
        return Path(values.workdir)
    word = next(w for w in sys.argv if w.lstrip("-").startswith("config="))
    path, _, arg = word.partition("=")[2].partition(":")
    return Path("runs") / (Path(path).stem + ("_smoke" if "smoke" in arg.split(",") else ""))


def run(argv: list[str]) -> None:
    """Parses `argv`, checks everything that can be checked, then runs the study."""
    values = _parse(argv)
    study, config = door.plain(values.config)
    if values.distributed:
        jax.distributed.initialize()
    workdir = _workdir(values)
    here = Run(workdir)
    record = execute(resolve(f"studies.{study}.run"), study, config, here)
    from ncjax import report  # matplotlib and jinja2 are loaded only when there is something to draw

    if here.writes and study != "chain":
        here.say(f"report: {report.write([workdir], workdir, title=workdir.name)}")
    here.say(f"done in {record['seconds']:.0f} s; results: {workdir / 'results.json'}")


def _no_space(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in str(error)


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 the user can mend it (one line says how), 130 stopped by Ctrl-C, 1 a bug."""
    argv = sys.argv if argv is None else argv
    again = "run the same command again to go on"
    try:
        run(argv)
        return 0
    except (UserError, flags.Error) as e:
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
