"""The command: `python -m ncjax.main --config=configs/pretrain.py [--config.key=value ...] [--workdir=DIR]`."""

from __future__ import annotations

from ncjax.core import cli, memory, start  # none of which imports JAX

if __name__ == "__main__":
    start.begin()

import errno
import re
import sys
import traceback
from argparse import Namespace
from pathlib import Path

from ml_collections import ConfigDict

from ncjax import config as door
from ncjax import conv, report
from ncjax.core import hosts
from ncjax.core.cli import Parser, no_room, one_line, streams
from ncjax.core.errors import UserError, nearest
from ncjax.runs.execute import execute
from ncjax.runs.run import Run
from ncjax.studies import module_of
from ncjax.training.loop import Interrupted


def _parse(argv: list[str]) -> tuple[Namespace, ConfigDict | None]:
    """The flags and the config they choose, overrides applied; None where only help is asked for.

    Raises:
      UserError: an unknown flag, key or file, or a value of the wrong type.
    """
    parser = Parser("python -m ncjax.main", __doc__, add_help=False)
    parser.add_argument("-h", "--help", action="store_true", help="show this and, with --config, every key of that config")
    parser.add_argument("--config", help="config file, with an argument after a colon if wanted: configs/pretrain.py:smoke")
    parser.add_argument("--workdir", help="where the run lives; default runs/<config name>")
    parser.add_argument(
        "--distributed", action="store_true", help="one of several processes, as the cluster says (TPU, SLURM)"
    )
    parser.add_argument("--coordinator", help="HOST:PORT of the first of several processes, where no cluster says it")
    parser.add_argument("--process-count", type=int, help="how many processes there are")
    parser.add_argument("--process-id", type=int, help="which of them this is, from 0")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    overrides = [word for word in argv if word.startswith("--config.")]
    args, unknown = parser.parse_known_args([word for word in argv if word not in overrides])
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        known = ("config", "workdir", "debug", "help", "distributed", "coordinator", "process-count", "process-id")
        if not unknown[0].startswith("-"):
            raise UserError(
                f"cannot read {unknown[0]!r}; keys follow the config's colon, joined by commas, or are --config.KEY=VALUE"
            )
        raise UserError(
            f"cannot read {unknown[0]!r}; {nearest(name, known)} (a config key is --config.{name}=VALUE, in short "
            f"`ncjax CONFIG --{name}=VALUE`)"
        )
    if args.help:
        print(parser.format_help())
    if args.help and args.config is None:
        return args, None
    several = [args.coordinator, args.process_count, args.process_id]
    if any(x is not None for x in several) and (None in several or not 0 <= args.process_id < args.process_count):
        raise UserError(
            "several processes: --coordinator=HOST:PORT, --process-count=N and --process-id=I, 0 <= I < N, go together"
        )
    if args.config is None:
        raise UserError("say what to run, for example: python -m ncjax.main --config=configs/quickstart.py")
    config = door.load(args.config)
    for word in overrides:
        dotted, equals, text = word.removeprefix("--config.").partition("=")
        if not equals:
            raise UserError(f"cannot read {word!r}: write --config.{dotted}=value")
        door.override(config, dotted, text)
    if args.help:
        print(door.described(config))
        return args, None
    return args, config


def _workdir(args: Namespace) -> Path:
    path, _, arg = args.config.partition(":")
    before, equals, after = arg.partition("=")  # names of variants come before keys, "smoke" comes anywhere
    first = before.rpartition(",")[0] if equals else before
    words = [*first.split(","), *(["smoke"] if "smoke" in re.split(r"\s*,\s*", after.strip()) else [])]
    found = Path(args.workdir or Path("runs") / "_".join([Path(path).stem, *filter(None, map(str.strip, words))]))
    try:
        str(found).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"workdir {found}: its name is not UTF-8, or this locale is not (export LC_ALL=C.UTF-8); choose another"
        ) from None
    return found


def run(argv: list[str]) -> None:
    """Parses `argv`, checks everything that can be checked, then runs the study."""
    args, config = _parse(argv)
    if config is None:
        return
    study, values = door.plain(config)
    if args.distributed or args.coordinator is not None:
        hosts.join(args.coordinator, args.process_count, args.process_id)
    workdir = _workdir(args)
    here = Run(workdir)
    here.say(f"{conv.header()}; {memory.pages()} pages of memory")
    record = execute(module_of(study).run, study, values, here)
    if here.writes and study != "chain":
        here.say(f"report: {report.write([workdir], workdir, title=workdir.name)}")
    here.say(f"done in {record['seconds']:.0f} s; results: {workdir / 'results.json'}")
    hosts.close()


def _no_space(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in str(error)


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 the user can mend it (one line says how), 130 Ctrl-C, 143 SIGTERM (both save first), 1 a bug."""
    streams()
    cli.interruptible()
    argv = sys.argv[1:] if argv is None else argv
    again = "run the same command again to go on"
    try:
        run(argv)
        return 0
    except UserError as e:
        if "--debug" in argv:
            traceback.print_exc()
        message, code = one_line(e), 2
    except Interrupted as e:
        message, code = f"stopped at step {e.step}, saved; {again}", 128 + e.signum
    except KeyboardInterrupt as e:
        message, code = f"stopped at once; what was saved is kept; {again}", cli.stopped_by(e)
    except BrokenPipeError:
        cli.unheard()
        hosts.end(0, "its reader went away")
        return 0
    except Exception as e:
        hosts.wait_for_news()  # it may be another process that failed
        if "--debug" in argv:
            traceback.print_exc()
            hosts.end(1, one_line(e))
            raise
        if _no_space(e):
            message, code = f"no space left on the disk; free some and {again}; the last checkpoint is kept", 2
        elif isinstance(e, OSError):
            message, code = f"{e.strerror or one_line(e)}: {e.filename}", 2
        elif short := no_room(e):
            message, code = f"{short}; {again}", 2
        else:
            traceback.print_exc()
            message, code = "this is a bug in ncjax; please report it with the lines above", 1
    print(f"ncjax: {message}", file=sys.stderr)
    hosts.end(code, message)
    return code


if __name__ == "__main__":
    sys.exit(cli.ended(main()))
