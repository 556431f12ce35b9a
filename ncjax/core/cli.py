"""What the small commands share: one line for what the user can mend, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ncjax.core.errors import UserError


def tell(name: str, work: Callable[[], object]) -> int:
    """Prints what `work` returns. Exit code 0; 2 with one line that says what to mend; 130 if stopped.

    Args:
      name: of the command, before that line.
      work: what it does.
    """
    try:
        print(work())
    except (UserError, OSError) as e:
        print(f"{name}: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        return 130
    return 0
