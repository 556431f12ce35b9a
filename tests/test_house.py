"""A file imports only from floors below its own: the layout of the house, kept by a test."""

import ast
from pathlib import Path

import ncjax

ROOT = Path(ncjax.__file__).parent
FLOORS = [
    ("core",),
    ("conv",),
    ("losses", "augment", "nc", "evidence"),
    ("scores",),
    ("models", "data"),
    ("tuning", "optim", "runs"),
    ("features", "report"),
    ("networks",),
    ("training",),
    ("transfer",),
    ("studies",),
    ("config",),
    ("main", "delta", "weights", "predict", "claims"),
    ("__main__",),
]
DOOR = {"config", "main", "delta", "weights", "predict", "claims", "__main__"}  # commands, and what opens them
NAMED = {"augment", "optim"}  # what a config names
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}


def imported(path):
    """Names directly below `ncjax` that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ncjax":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("ncjax."))


def test_every_import_points_down():
    files = [p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.name != "__init__.py"]
    files = [p for p in files if not p.is_relative_to(ROOT / "configs")]  # they come with the package, and are the user's
    assert len(files) > 25
    wrong = []
    for path in files:
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        wrong += [
            f"{path.relative_to(ROOT)} imports {name}"
            for name in imported(path)
            if name != own and LEVEL[name] >= LEVEL[own]
        ]
    assert not wrong


def test_config_dict_stops_at_the_door():
    users = [p.name for p in ROOT.rglob("*.py") if "ConfigDict" in p.read_text()]
    assert set(users) == {"config.py", "main.py"}


def test_linen_stays_in_models():
    users = {p.parent.name for p in ROOT.rglob("*.py") if "flax" in p.read_text() and "import flax" in p.read_text()}
    assert users == {"models"}


def test_modules_at_the_top_are_the_door_or_what_a_config_names():
    assert {p.stem for p in ROOT.glob("*.py")} == {"__init__"} | DOOR | NAMED
    assert {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()} == set(LEVEL) - DOOR - NAMED
