"""Keys: a study's signature is their schema, other words for them are translated everywhere or refused everywhere."""

import argparse
from typing import Annotated, NamedTuple, Optional

import pytest

from ncjax import config as door
from ncjax import main
from ncjax.core import options, values
from ncjax.core.errors import UserError
from ncjax.core.options import Also, Was


class Block(NamedTuple):
    size: int = 3
    rate: float = 0.5


def study(
    *,
    run,
    block: Block = Block(size=4),
    start: Annotated[str, Also("weights"), Was("begin")],
    limit: Optional[int] = None,  # noqa: UP045 - the older way to write it
):
    return {}


def test_a_schema_opens_blocks_and_takes_every_way_to_write_none():
    known = options.schema(study)
    assert {k: o.default for k, o in known.items() if k != "start"} == {"size": 4, "rate": 0.5, "limit": None}
    assert values.accepts(known["limit"].hint, None)
    assert values.accepts(known["limit"].hint, 3)
    assert not values.accepts(known["limit"].hint, "3")


def test_another_word_is_its_key_and_an_old_one_is_named():
    assert options.check(study, "s", {"weights": "x"})["start"] == "x"
    with pytest.raises(UserError, match=r"'begin'.*did you mean 'start'"):
        options.check(study, "s", {"begin": "x"})
    with pytest.raises(UserError, match="given twice"):
        options.check(study, "s", {"weights": "x", "start": "y"})


def test_an_argument_without_a_type_is_named():
    def untyped(*, run, size=3):
        return {}

    with pytest.raises(UserError, match="untyped: say of what type size is"):
        options.schema(untyped)


def test_other_words_work_in_settings_variants_and_steps():
    made = door.make("measure", "other", smoke={}, variants={"other": {"weights": "b"}}, weights="a")
    assert made.init == "b"
    steps = {"one": {"study": "measure", "weights": "a"}}
    assert door.make("chain", smoke={}, steps=steps).steps.one.init == "a"


@pytest.mark.parametrize("word", ["head", "projection_layer"])
def test_wrong_words_in_steps_are_refused(word):
    steps = {"one": {"study": "pretrain", word: 2}}
    with pytest.raises(UserError, match=f"step 'one': no key '{word}'.*did you mean 'projection_layers'"):
        door.make("chain", smoke={}, steps=steps)
    with pytest.raises(UserError, match=f"no key '{word}'"):
        door.make("pretrain", "small", smoke={}, variants={"small": {word: 2}})


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("configs/a.py", "a"),
        ("configs/a.py:cifar,smoke", "a_cifar_smoke"),
        ("configs/a.py:cifar,lr=0.1,smoke", "a_cifar_smoke"),
        ("configs/a.py:lr=0.1, smoke", "a_smoke"),
        ("configs/a.py:targets=mnist,cifar", "a"),
        ("configs/a.py:metrics=[a,b],lr=0.1", "a"),
    ],
)
def test_variants_name_the_folder_and_values_do_not(spec, name):
    assert main._workdir(argparse.Namespace(config=spec, workdir=None)).name == name
