"""Every page of the documentation: its commands are what ncjax takes, its snippets run, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from ncjax import config as door
from ncjax import main
from ncjax.studies import module_of

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
APART = {"networks": "class Skip", "extend": ""}  # run elsewhere: tests/networks/test_weights.py, tests/test_own.py


def fenced(path, language):
    found = re.findall(r"^```(\S*)\n(.*?)^```", path.read_text(), flags=re.S | re.M)
    return [code for name, code in found if name == language]


def commands():
    for path in PAGES:
        for block in fenced(path, ""):
            for line in block.replace("\\\n", " ").splitlines():
                if not line.startswith(("ncjax ", "python ", "pip ")):
                    continue
                words = shlex.split(line, comments=True)
                for i, word in enumerate(words):
                    if word in ("ncjax", "python") and (i == 0 or words[i - 1] == "&&"):
                        yield pytest.param(words[i:], id=f"{path.stem}: {line.strip()[:70]}")


FOUND = list(commands())


def test_commands_are_found():
    assert len(FOUND) > 25


@pytest.mark.parametrize("words", FOUND)
def test_a_command_is_what_ncjax_takes(words, monkeypatch):
    """Configs and keys are read by the command itself, everything checked, nothing run."""
    monkeypatch.chdir(ROOT)
    if words[0] == "python":
        assert words[1] == "-m", words
        module, rest = words[2], words[3:]
        if module != "ncjax.main":
            assert module in ("ncjax.report", "ncjax.weights", "ncjax.delta", "ncjax.nc", "venv"), words
            return
        argv = rest
    else:
        from ncjax import __main__ as command

        first, rest = words[1], words[2:]
        if first in command.COMMANDS or first in ("list", "--version"):
            assert first != "list" or not rest or rest[0] in {*command.KINDS, "configs"}
            return
        argv = [f"--config={first}", *map(command._key, rest)]
    args, config = main._parse(argv)
    if config is not None:
        study, values = door.plain(config)
        assert set(values) == set(door.schema(module_of(study).run))
    else:
        assert args.help


SNIPPETS = [
    pytest.param(path.stem, code, id=f"{path.stem} {i}")
    for path in [ROOT / "README.md", *DOCS]
    for i, code in enumerate(fenced(path, "python"))
    if path.stem not in APART or APART[path.stem] not in code
]


@pytest.mark.parametrize(("page", "code"), SNIPPETS)
def test_a_snippet_runs_and_says_something(page, code, capsys, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "snippets"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    if "import torch" in code:
        pytest.importorskip("torch", reason="torch is not installed")
    exec(compile(code, page, "exec"), {})
    assert capsys.readouterr().out.strip()


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_page_is_in_the_site_and_every_public_module_of_the_api_exists():
    index = (ROOT / "docs" / "index.md").read_text()
    listed = set(re.search(r"```\{toctree\}(.*?)```", index, flags=re.S)[1].split()) - {":maxdepth:", "1", ":hidden:"}
    assert listed == {p.stem for p in DOCS if p.stem != "index"} | {"results/README"}
    modules = re.findall(r"automodule:: (\S+)", (ROOT / "docs" / "api.md").read_text())
    assert len(modules) > 30
    for name in modules:
        __import__(name)


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
