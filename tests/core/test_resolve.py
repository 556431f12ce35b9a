"""Names in configs lead to functions wherever these lie."""

import pytest

from ncjax.core.errors import UserError
from ncjax.core.resolve import absolute
from ncjax.core.roles import LOSS, resolve


def test_ones_own_module_may_be_called_like_one_of_ncjax(tmp_path, monkeypatch):
    (tmp_path / "losses.py").write_text("def mine(scale=1.0):\n    return scale\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("losses.mine(scale=2.0)", LOSS)() == 2.0
    assert resolve("losses.mse", LOSS).__module__.startswith("ncjax.losses")
    with pytest.raises(UserError, match=r"ncjax.losses has no 'msee'; did you mean 'mse'"):
        resolve("losses.msee", LOSS)


def test_files_are_named_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("own.py:net(width=3)") == f"{tmp_path / 'own.py'}:net(width=3)"
    assert absolute("own.py") == str(tmp_path / "own.py")
    assert absolute("models.mlp.mlp(width=3)") == "models.mlp.mlp(width=3)"
    assert absolute("pretrain") == "pretrain"
