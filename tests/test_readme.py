"""The snippets of README and docs run as they stand."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {"README": README, "measure": (ROOT / "docs" / "measure.md").read_text()}
SNIPPETS = [(page, code) for page, text in PAGES.items() for code in re.findall(r"```python\n(.*?)```", text, flags=re.S)]


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS)
def test_snippet(page, snippet, capsys):
    if "import torch" in snippet:
        pytest.importorskip("torch", reason="torch is not installed")
    exec(compile(snippet, page, "exec"), {})
    assert capsys.readouterr().out.strip()


def test_snippets_of_what_can_be_added_are_python():
    pieces = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(), flags=re.S)
    assert len(pieces) == 9
    made = {}
    for piece in pieces:
        exec(compile(piece, "extend.md", "exec"), made)


def test_readme_is_short_and_its_links_lead_somewhere():
    assert len(README.splitlines()) <= 150
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
