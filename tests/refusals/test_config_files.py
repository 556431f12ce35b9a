"""A config file is a user's program: whatever it does wrong is one line with the file and, where it ran, the line."""

from __future__ import annotations

import os

import pytest

from ncjax import main

HEAD = "from ncjax import config\n\n"
BROKEN = {
    "a name that is not there": ("def get_config(arg):\n    return nowhere\n", "line 4: NameError"),
    "at import": ("x = nowhere\n", "line 3: NameError"),
    "a module that is not there": ("import nowhere_at_all\n", "line 3: ModuleNotFoundError"),
    "exits": ("raise SystemExit(3)\n", "line 3: SystemExit"),
    "exits later": ("import sys\n\ndef get_config(arg):\n    sys.exit()\n", "line 6: SystemExit"),
    "does not parse": ("def get_config(arg:\n", "line 3: SyntaxError"),
    "raises": ("def get_config(arg):\n    raise ValueError('two\\nlines')\n", "line 4: ValueError: two lines"),
    "recurses": ("def get_config(arg):\n    return get_config(arg)\n", "line 4: RecursionError"),
    "none": ("def get_config(arg):\n    pass\n", "returned NoneType"),
    "dictionary": ("def get_config(arg):\n    return {'study': 'pretrain'}\n", "returned dict"),
    "no study": (
        "from ml_collections import ConfigDict\n\ndef get_config(arg):\n    return ConfigDict({'lr': 1.0})\n",
        "a config without a study",
    ),
    "study of another type": (
        "from ml_collections import ConfigDict\n\ndef get_config(arg):\n    return ConfigDict({'study': 3})\n",
        "a config without a study",
    ),
    "no function": ("get_config = 3\n", "has no function get_config"),
    "nothing": ("", "has no function get_config"),
    "too many arguments": ("def get_config(arg, other):\n    pass\n", "TypeError"),
    "unknown study": ("def get_config(arg):\n    return config.make('pretrian', arg, smoke={})\n", "pretrian"),
    "unknown key": (
        "def get_config(arg):\n    return config.make('pretrain', arg, smoke={}, lrr=1)\n",
        "did you mean 'lr'",
    ),
    "wrong type": ("def get_config(arg):\n    return config.make('pretrain', arg, smoke={}, lr='a')\n", "lr='a'"),
    "out of range": ("def get_config(arg):\n    return config.make('pretrain', arg, smoke={}, lr=-1.0)\n", "lr=-1.0"),
}
STEPS = {
    "{}": "expected at least one",
    "[]": "steps=[]",
    "{'a': 3}": "step 'a': expected a dictionary",
    "{'a': {}}": "step 'a': expected a dictionary with its study",
    "{'a': {'lr': 0.1}}": "step 'a': expected a dictionary with its study",
    "{'a': {'study': 3}}": "step 'a': expected a dictionary with its study",
    "{'a.b': {'study': 'pretrain'}}": "step 'a.b': expected a name of letters",
    "{'../a': {'study': 'pretrain'}}": "step '../a': expected a name of letters",
    "{'': {'study': 'pretrain'}}": "step '': expected a name of letters",
    "{3: {'study': 'pretrain'}}": "step 3: expected a name of letters",
    "{'a': {'study': 'pretrain', 'lr': -1.0}}": "step 'a': lr=-1.0",
    "{'a': {'study': 'measure', 'init': '@b'}, 'b': {'study': 'pretrain'}}": "names no earlier step",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_config_file_does_wrong_is_one_line(tmp_path, refused, name):
    text, words = BROKEN[name]
    file = tmp_path / "mine.py"
    file.write_text(HEAD + text)
    said = refused(config=str(file))
    assert words in said
    if "line" in words:
        assert str(file) in said


@pytest.mark.parametrize("steps", STEPS)
def test_steps_that_are_none_are_refused(tmp_path, refused, steps):
    file = tmp_path / "mine.py"
    file.write_text(HEAD + f"def get_config(arg):\n    return config.make('chain', arg, smoke={{}}, steps={steps})\n")
    assert STEPS[steps] in refused(config=str(file))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.write_bytes(b"\xff\xfe"), "is not text in UTF-8"),
        (lambda p: p.write_bytes(b"x = '\x00'"), "SyntaxError"),
        (lambda p: p.mkdir(), "is no regular file"),
        (os.mkfifo, "is no regular file"),
        (lambda p: p.symlink_to(p), "cannot read"),
        (lambda p: None, "no file"),
    ],
)
def test_files_that_are_no_programs(tmp_path, refused, make, words):
    file = tmp_path / "mine.py"
    make(file)
    assert words in refused(config=str(file))


def test_a_function_without_an_argument_is_called_without(tmp_path, refused, capsys):
    file = tmp_path / "mine.py"
    file.write_text(HEAD + "def get_config():\n    return config.make('pretrain', smoke={})\n")
    assert main.main([f"--config={file}", "--help"]) == 0
    assert "keys of study pretrain" in capsys.readouterr().out
    assert "takes no argument" in refused(config=f"{file}:smoke")
