"""Names in configs: where a function lies, and optionally how it is called.

`models.resnet.resnet18(width=32)` is looked for below `ncjax`, then among all installed modules (`my_package.nets.small`);
`path/to/file.py:function` is a function of a file. Where a dotted name is a module's, the function of the module's own name
is meant: `scores.logme` is `ncjax.scores.logme.logme`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ncjax.core.errors import UserError, nearest
from ncjax.core.files import read_text

FILE = "ncjax_file_"  # what names of modules begin with that are a user's file


def public_names(module: ModuleType) -> list[str]:
    """The public functions of a module: those that it defines, or that a package lists in `__all__`."""
    listed = getattr(module, "__all__", ())
    return sorted(
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and (value.__module__ == module.__name__ or name in listed)
    )


def module_of_file(path: str) -> ModuleType:
    """The module in a Python file, run once for each version of its text.

    Raises:
      UserError: there is no such file, or it does not run; the line says where.
    """
    text = read_text(os.path.expanduser(path))
    file = Path(os.path.expanduser(path)).resolve()
    version = hashlib.sha256(f"{file} {text}".encode()).hexdigest()[:12]
    name = f"{FILE}{file.stem}_{version}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: classes and pickles look their module up by name
    try:
        with running(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def running(path: str | Path) -> Iterator[None]:
    """Whatever a user's file raises while it runs is one line with its name and the line where it came from."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as e:  # SystemExit too
        file = Path(os.path.expanduser(path)).resolve()
        raise UserError(f"{path}{_line(e, file)}: {type(e).__name__}: {e}") from e


def _line(error: BaseException, file: Path) -> str:
    """ ", line N" of a file where an error came from, if that can be told."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f", line {error.lineno}"
    number, trace = None, error.__traceback__
    while trace is not None:
        number = trace.tb_lineno if trace.tb_frame.f_code.co_filename == str(file) else number
        trace = trace.tb_next
    return "" if number is None else f", line {number}"


def split_call(text: str) -> tuple[str, dict[str, Any]]:
    """`"a.b(c=1, d=x)"` -> `("a.b", {"c": 1, "d": "x"})`; bare words are strings."""
    name, opened, _ = text.partition("(")
    call = "f" + text[len(name) :] if opened else "f()"
    try:
        node = ast.parse(call.strip(), mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise ValueError
        if node.args or any(k.arg is None for k in node.keywords):
            raise UserError(f"{text!r}: write arguments as key=value")
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            value, key = keyword.value, str(keyword.arg)
            if key in kwargs:
                raise UserError(f"{text!r}: {key} is given twice")
            bare = isinstance(value, ast.Name) and value.id not in ("True", "False", "None")
            kwargs[key] = value.id if isinstance(value, ast.Name) and bare else ast.literal_eval(value)
        return name.strip(), kwargs
    except UserError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"cannot read {text!r}: expected a dotted name such as 'losses.mse(scale=15)'") from None


def _import(name: str) -> ModuleType | None:
    """A module, or None where there is none of that name (as against one that fails to import)."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name is not None and (name == e.name or name.startswith(f"{e.name}.")):
            return None
        raise UserError(f"{name} cannot be imported{_place(e)}: {e}") from None
    except (Exception, SystemExit) as e:
        raise UserError(f"{name} cannot be imported{_place(e)}: {type(e).__name__}: {e}") from None


def _place(error: BaseException) -> str:
    """ " (FILE, line N)" where an error of somebody's module was raised."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    steps = [s for s in frames if "importlib" not in s.filename and s.filename != __file__]
    return f" ({steps[-1].filename}, line {steps[-1].lineno})" if steps else ""


def module(name: str) -> ModuleType:
    """The module `studies.pretrain` below `ncjax`, `my_package.study`, or that of a file `path/to/study.py`.

    Raises:
      UserError: there is none.
    """
    if name.endswith(".py"):
        return module_of_file(name)
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"cannot read {name!r}: expected a dotted name such as 'models.resnet'")
    found = _import(f"ncjax.{name}") or _import(name)
    if found is None:
        raise UserError(
            f"no module ncjax.{name}, and none called {name}; a dotted name looks like 'models.resnet.resnet18'"
        )
    return found


def study_module(name: str) -> ModuleType:
    """The module of a study: `pretrain` of `ncjax.studies`, or one's own, `file.py` or `my_package.study`.

    Raises:
      UserError: there is none.
    """
    own = not name.endswith(".py") and "." not in name
    return module(f"studies.{name}" if own else name)


def find(path: str) -> Callable[..., Any]:
    """The function of a dotted name, or of `file.py:function`.

    Raises:
      UserError: no such module, file or function.
    """
    file, colon, name = path.rpartition(":")
    if colon and file.endswith(".py"):
        return _named(module_of_file(file), name, file)
    owner, _, name = path.rpartition(".")
    if not path or not all(part.isidentifier() for part in path.split(".")):
        raise UserError(f"cannot read {path!r}: expected a dotted name such as 'losses.mse(scale=15)'")
    itself = _import(f"ncjax.{path}")
    if itself is not None and name in public_names(itself):
        return getattr(itself, name)
    if not owner:
        raise UserError(f"no function {path!r}: a dotted name looks like 'models.resnet.resnet18'")
    found = module(owner)
    if name not in public_names(found) and found.__name__ == f"ncjax.{owner}":
        found = _outside(owner, name) or found  # one's own module may have a name that ncjax's has too
    return _named(found, name, found.__name__)


def _outside(owner: str, name: str) -> ModuleType | None:
    own = _import(owner)
    return own if own is not None and hasattr(own, name) else None


def _named(found: ModuleType, name: str, place: str) -> Callable[..., Any]:
    known = public_names(found)
    function = getattr(found, name, None) if not name.startswith("_") else None
    if name in known or (callable(function) and not found.__name__.startswith("ncjax.")):
        return function  # type: ignore[return-value]
    raise UserError(f"{place} has no {name!r}" + (f"; {nearest(name, known)}" if known else ""))


def absolute(text: str) -> str:
    """The same name, found from any folder: the path of a file made absolute."""
    path, opened, arguments = text.partition("(")
    file, colon, name = path.partition(".py:") if ".py:" in path else (path.removesuffix(".py"), "", "")
    if file != path:
        path = f"{Path(os.path.expanduser(file + '.py')).resolve()}{colon and ':'}{name}"
    return path + opened + arguments


def spelled(function: Callable[..., Any]) -> str:
    """The name by which `find` finds a function, with the settings that a `functools.partial` binds.

    Raises:
      UserError: it has no name that can be found again (a lambda, or a function inside another), or positional settings.
    """
    plain, settings = function, ""
    if isinstance(function, functools.partial):
        plain = unbound(function)
        if function.args:
            raise UserError(f"{function!r}: bind settings by name")
        settings = f"({', '.join(f'{k}={v!r}' for k, v in function.keywords.items())})"
    name, module = getattr(plain, "__qualname__", ""), sys.modules.get(getattr(plain, "__module__", ""))
    if not name.isidentifier() or module is None:
        raise UserError(f"{plain!r}: a function of a config is one at the top of a module or file, under its own name")
    if module.__name__.startswith(FILE):
        return f"{module.__file__}:{name}{settings}"
    where, parent = module.__name__, module.__name__.rpartition(".")[0]
    while parent and getattr(sys.modules.get(parent), name, None) is plain:  # a package that hands on what its files define
        where, parent = parent, parent.rpartition(".")[0]
    return f"{where.removeprefix('ncjax.')}.{name}{settings}"


def short_name(text: str) -> str:
    """The name of a function without its place and its settings: `file.py:mine(a=1)` is `mine`."""
    return re.split(r"[.:]", text.partition("(")[0])[-1]


def unbound(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, without its bound arguments."""
    return unbound(function.func) if isinstance(function, functools.partial) else function


def own_name(function: Callable[..., Any]) -> str:
    """The name of a function, bound arguments or not."""
    return unbound(function).__name__
