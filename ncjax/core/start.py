"""How a command of ncjax begins, before it imports anything large."""

from __future__ import annotations

from ncjax.core import cli, compile_cache, memory


def begin() -> None:
    """Ctrl-C in one line, huge pages for malloc, programs from disk. Call it first: JAX is imported twice else."""
    cli.leave_at_once()
    memory.huge_pages()
    compile_cache.keep()
    cli.quiet()
