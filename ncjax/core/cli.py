"""What commands share: streams that take any text, usage errors in one line, and the exit code."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from ncjax.core.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def __init__(self, prog: str, description: str | None, **options: bool):
        super().__init__(prog=prog, description=description, allow_abbrev=False, **options)  # pyright: ignore[reportArgumentType]

    def error(self, message: str) -> NoReturn:
        """Raises it as a `UserError`."""
        raise UserError(f"{message}; {self.prog} --help says what there is")


def streams() -> None:
    """Makes standard output and error take any text, in UTF-8 whatever the locale, also where they are closed."""
    for stream in (0, 1, 2):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process lives
        elif hasattr(stream, "reconfigure") and (
            stream.encoding.lower() not in ("utf-8", "utf8") or stream.errors == "strict"
        ):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


STOPS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}  # and what Python does about them


def leave_at_once() -> None:
    """Ctrl-C or SIGTERM ends the process with one line while modules are imported, where an exception would be lost."""

    def leave(signum: int, frame: Any) -> None:
        with contextlib.suppress(OSError):
            os.write(2, b"ncjax: stopped\n")
        os._exit(128 + signum)

    for sign, default in STOPS.items():
        if signal.getsignal(sign) is default:
            signal.signal(sign, leave)


def interruptible() -> None:
    """Ctrl-C and SIGTERM are a `KeyboardInterrupt` from here, which is not lost where Python would swallow it."""
    interrupt = _Interrupt()
    with contextlib.suppress(ValueError):  # not the main thread
        for sign in STOPS:
            if getattr(signal.getsignal(sign), "__name__", "") == "leave":
                signal.signal(sign, interrupt)
                signal.signal(signal.SIGALRM, interrupt)


class _Interrupt:
    """Raises `KeyboardInterrupt`; a moment later in JAX's callback of the garbage collector, out of which none comes."""

    signum = signal.SIGINT

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """The handler; its argument says which signal it was."""
        if signum != signal.SIGALRM:
            self.signum = signum
        if frame is not None and frame.f_code.co_name == "_xla_gc_callback":
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return
        raise KeyboardInterrupt(self.signum)


def stopped_by(error: KeyboardInterrupt) -> int:
    """The exit code of a process that was stopped: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + int(error.args[0] if error.args else signal.SIGINT)


def ended(code: int) -> int:
    """The exit code of a process; one that was stopped ends here: torn down while it compiles, XLA crashes."""
    if code in [128 + sign for sign in STOPS]:
        flush()
        os._exit(code)
    return code


def flush() -> None:
    """Writes out what was printed, before an end at which Python would not."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def quiet() -> None:
    """Keeps libraries' warnings from standing between the user and the line that matters; `python -W` brings them back."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def unheard() -> None:
    """Lets standard output lead nowhere, once its reader has gone: what was begun is finished all the same."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def one_line(error: BaseException) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def no_room(error: BaseException) -> str | None:
    """Says that memory does not suffice, and how much was asked for, where an error says that; else None."""
    text = one_line(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        return f"not enough memory ({text[:200]}); try a smaller batch_size or image_size"
    return None


def tell(name: str, parser: Parser, argv: list[str] | None, work: Callable[[argparse.Namespace], object]) -> int:
    """Prints what `work` makes of the arguments. Exit code 0; 2 with one line that says what to mend; 130, 143 stopped.

    Args:
      name: of the command, before that line.
      parser: of its arguments.
      argv: the arguments; None for the process's.
      work: what it does.
    """
    streams()
    interruptible()
    try:
        print(work(parser.parse_args(argv)), flush=True)
    except BrokenPipeError:
        unheard()
    except (UserError, OSError, MemoryError) as e:
        print(f"{name}: {no_room(e) or one_line(e)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as e:
        print(f"{name}: stopped", file=sys.stderr)
        return stopped_by(e)
    return 0
