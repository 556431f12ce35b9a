"""The README's snippets run as they stand."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
SECTION = README.split("## Measure your own features")[1].split("\n## ")[0]
SNIPPETS = re.findall(r"```python\n(.*?)```", SECTION, flags=re.S)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["numpy", "torch", "flax"])
def test_snippet(snippet, capsys):
    if "import torch" in snippet:
        pytest.importorskip("torch", reason="torch is not installed")
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
