"""Values have ranges, names have roles: for every key of every study, and every setting of every function of ncjax."""

from __future__ import annotations

import math
import typing

import pytest

from ncjax import config as door
from ncjax import studies
from ncjax.core import options, roles, values
from ncjax.core.errors import UserError

STUDIES = ("pretrain", "measure", "finetune", "compare", "choose_layer", "backbones")
ROLES = [role for role in vars(roles).values() if isinstance(role, roles.Role)]
REQUIRED = {"init": "runs/x", "backbones": ["a", "b"], "targets": ["embedded.digits"]}


def _outside(hint: object, notes: tuple) -> list[object]:
    """Values that a type and its range do not allow."""
    kinds, inner = values.kinds(hint), values.element(hint)
    numbers = {int, float} & {*kinds, *(values.kinds(inner) if inner else ())}
    bad: list[object] = []
    if float in numbers:
        bad += [math.nan, math.inf, -math.inf, 1e39, 10**400]
    for note in notes:
        if isinstance(note, values.Range) and numbers:
            step = 1 if int in numbers else max(abs(note.low), 1.0) / 2
            bad += [note.low - step] if math.isfinite(note.low) else []
            bad += [note.high + step] if math.isfinite(note.high) else []
            bad += [note.high] if note.below else []
        if isinstance(note, values.OneOf):
            bad += ["nonsense", ""]
    if str not in kinds and inner is None:
        bad += ["a", [1]]
    bad = [int(x) if int in numbers and float not in numbers and isinstance(x, float) else x for x in bad]
    if inner is not None:
        lists = [[x] for x in bad] + [["a"]] * (not isinstance(inner, type) or not issubclass(inner, str)) + ["a"]
        for note in notes:
            if isinstance(note, values.Items):
                lists += [[]] * (note.least > 0) + [["x", "x"] if inner is str else [1.0, 1.0]] * note.distinct
        return lists
    return bad


def _keys() -> list[tuple[str, str, object]]:
    return [
        (study, key, bad)
        for study in STUDIES
        for key, option in options.schema(studies.module_of(study).run).items()
        for bad in _outside(option.hint, option.notes)
    ]


def test_every_number_of_every_study_says_its_range():
    for study in STUDIES:
        for key, option in options.schema(studies.module_of(study).run).items():
            inner = values.element(option.hint) or option.hint
            if {int, float} & {*values.kinds(inner)}:
                assert any(isinstance(n, values.Range) for n in option.notes), (study, key)


@pytest.mark.parametrize("study", STUDIES)
def test_what_lies_outside_is_refused_and_the_key_named(study):
    run, tried = studies.module_of(study).run, 0
    needed = {k: v for k, v in REQUIRED.items() if k in options.schema(run)}
    for _, key, bad in (x for x in _keys() if x[0] == study):
        with pytest.raises(UserError) as e:
            options.check(run, study, {**needed, key: bad})
        assert str(e.value).startswith(key), (key, bad, str(e.value))
        tried += 1
    assert tried > 10


def _settings() -> list[tuple[roles.Role, str, str, object]]:
    found = []
    for role in ROLES:
        for name in roles.known_of(role):
            function = roles.find(name)
            hints = roles._hints(function)
            for key in roles.settings(function, role) or ():
                found += [(role, name, key, bad) for bad in _outside(*values.split(hints.get(key, typing.Any)))]
    return found


def test_every_setting_in_brackets_has_a_type_and_numbers_their_range():
    for role in ROLES:
        for name in roles.known_of(role):
            function = roles.find(name)
            hints = roles._hints(function)
            for key in roles.settings(function, role) or ():
                assert key in hints, (name, key)
                hint, notes = values.split(hints[key])
                if {int, float} & {*values.kinds(values.element(hint) or hint)}:
                    assert any(isinstance(n, values.Range) for n in notes), (name, key)


def test_settings_in_brackets_are_checked_like_keys():
    tried = 0
    for role, name, key, bad in _settings():
        if isinstance(bad, float) and not math.isfinite(bad):
            bad = 1e999 if bad > 0 else -1e999
        text = "1e999" if bad == math.inf else "-1e999" if bad == -math.inf else repr(bad)
        if text == "nan" or (isinstance(bad, list) and any(isinstance(x, float) and not math.isfinite(x) for x in bad)):
            continue
        with pytest.raises(UserError):
            roles.resolve(f"{name}({key}={text})", role)
        tried += 1
    assert tried > 100


def test_a_key_takes_functions_of_its_role_only_and_never_calls_others():
    everything = {name: role for role in ROLES for name in roles.known_of(role)}
    tried = 0
    for name, own in everything.items():
        for role in ROLES:
            if role in (own, roles.READER):
                continue
            with pytest.raises(UserError):
                roles.resolve(name, role)
            tried += 1
    assert tried > 500


@pytest.mark.parametrize("role", [r for r in ROLES if r.takes], ids=lambda r: r.word)
def test_what_a_role_gives_is_no_setting(role):
    for name in roles.known_of(role):
        for key in role.takes:
            with pytest.raises(UserError, match=key):
                roles.resolve(f"{name}({key}=3)", role)


@pytest.mark.parametrize(
    "override",
    [
        "model=losses.mse",
        "loss=models.mlp.mlp",
        "optimizer=optim.cosine",
        "model=weights.files.write",
        "model=config.load(spec='x.py')",
        "model=os.system",
        "model=shutil.rmtree",
        "loss=losses.mse(scale=1,scale=2)",
        "augment=augment.crop_flip(key=3)",
        "schedule=optim.cosine(steps=3)",
        "model=models.mlp.mlp(projection_layers=2)",
        "model=models.mlp.mlp(width=0)",
        "model=models.mlp.mlp(width='a')",
        "model=models.mlp.mlp(dtype=float99)",
        "model=resnet18",
        "loss=mse",
        "metrics=[losses.mse]",
        "model=((((((",
        "weight_decay=-1",
        "clip=-1",
        "val_fraction=1.5",
        "measure_every=-1",
        f"seed={2**40}",
        "seed=-1",
        f"batch_size={10**10}",
        f"epochs={10**30}",
        "image_size=0",
        f"image_size={10**6}",
        "classes=0-99999999999",
        "classes=3-1",
        "lr=1e400",
        "lr=nan",
        "lr=1e-60",
        "resize=10",
        "channels=2",
        "warmup_epochs=1000",
    ],
)
def test_the_line_names_the_key(refused, override):
    assert override.partition("=")[0] in refused(override)


def test_what_cannot_fit_says_how_much_it_would_take(refused):
    assert "GB" in refused("batch_size=2000000000")
    assert "GB" in refused("image_size=16384", "n_per_class=400")


@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 1])
def test_seeds_within_their_range_are_taken_whole(seed):
    import jax

    assert int(jax.random.key_data(jax.random.key(seed))[-1]) == seed
    assert options.check(studies.module_of("pretrain").run, "pretrain", {"seed": seed})["seed"] == seed


def test_help_lists_every_key_with_its_range(capsys):
    from ncjax import main

    assert main.main(["--config=configs/finetune.py:init=x", "--help"]) == 0
    said = capsys.readouterr().out
    for key, option in options.schema(studies.module_of("finetune").run).items():
        assert f"--config.{key}=" in said
        assert values.limits(option.notes) in said
    assert "peak learning rate" in said
    config = door.load("configs/quickstart.py")
    assert "--config.steps.pretrain.lr=" in door.described(config)
