"""What a command writes it reads: every field of every file of settings, with values as people type them."""

import dataclasses
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.fitness.settings import load_settings
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_values import typed_fields
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, read_yaml_mapping
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space, space_to_mapping
from fedpareto.training.cli import _parser
from fedpareto.training.config.run import RunConfig, config_to_mapping, write_config
from fedpareto.training.runs.folder import CONFIG

#: Text that YAML has other ideas about, and text that is only odd.
_ODD = [
    *(
        "6e7",
        "1e5",
        "1e3.yaml",
        "60000000",
        "007",
        "0x10",
        "1_000",
        "1:30",
        "2001-01-01",
        ".5",
        ".inf",
        "-.inf",
        ".nan",
    ),
    *("null", "Null", "~", "yes", "no", "on", "true", "False", "y", "=", "<<", "a: b", "a #b", "#a", "'a'", '"a"'),
    *(
        "it's",
        "- a",
        "-",
        "[a]",
        "{a: b}",
        "&a",
        "*a",
        "!a",
        "!!int 3",
        "%a",
        "@a",
        "`a`",
        "|",
        ">",
        "?",
        ": ",
        " lead",
    ),
    *("trail ", "  ", "a\nb", "\ta", "a\\b", "ünï/cødé/文", "\u2028", "\x85", "\udcff", "😀", "--resume", "-1"),
]

_TEXTS = st.sampled_from(_ODD) | st.text(min_size=1, max_size=12).filter(lambda text: "\0" not in text)
_QUANTITIES = st.sampled_from(["6e7", "60000000", "1.2G", " 60M ", "50T", "5ms", "0.8s", ".5G", "1e9", "+7K"])


def _values(hint: Any) -> st.SearchStrategy[Any]:
    """Return values of a field's type."""
    if typing.get_origin(hint) is Literal:
        return st.sampled_from(typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return st.lists(_values(typing.get_args(hint)[0]), max_size=3).map(tuple)
    if typing.get_args(hint):
        return st.one_of([_values(option) for option in typing.get_args(hint)])
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        required = [
            field.name
            for field in dataclasses.fields(hint)
            if field.default is field.default_factory is dataclasses.MISSING
        ]
        if required:
            return st.builds(hint, **{name: _values(hints[name]) for name in required})
        return _groups(hint)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(0, 40) | st.integers(-(2**63) + 1, 2**63 - 1),
        float: st.floats(0, 1) | st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        str: _QUANTITIES | _TEXTS,
        type(None): st.none(),
    }
    return simple[hint]


@st.composite
def _groups(draw: st.DrawFn, cls: Any, default: Any = None) -> Any:
    """Draw a dataclass: each field in turn has a new value where its neighbours allow that."""
    group, hints = cls() if default is None else default, typing.get_type_hints(cls)
    for field in draw(st.permutations(dataclasses.fields(cls))):
        try:
            group = dataclasses.replace(group, **{field.name: draw(_values(hints[field.name]))})
        except UserError:
            continue
    return group


def _leaves(cls: Any, prefix: str = "") -> list[str]:
    hints = typing.get_type_hints(cls)
    names = []
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            names += _leaves(hints[field.name], f"{prefix}{field.name}.")
        else:
            names.append(f"{prefix}{field.name}")
    return names


def _flow(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _read(folder: Path) -> RunConfig:
    return from_mapping(RunConfig, read_yaml_mapping(folder / CONFIG), str(folder))


def _check_config(folder: Path, config: RunConfig) -> None:
    write_config(folder / CONFIG, config)
    assert _read(folder) == config
    parser = _parser()
    assert parser.build(RunConfig, parser.parse(["--config", str(folder / CONFIG)])) == config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


@pytest.mark.slow
@runs(60, shrink=False)
@given(config=_groups(RunConfig))
def test_a_configuration_of_any_values_is_read_as_it_was_written(folder: Path, config: RunConfig) -> None:
    _check_config(folder, config)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in _leaves(RunConfig) if name.endswith(("put", "root", "project"))])
def test_every_odd_text_comes_back_from_a_configuration(folder: Path, name: str) -> None:
    group, _, field = name.rpartition(".")
    for text in _ODD:
        if name == "tracking.project" and (not text.strip() or set(text) & set("/\\#?%:")):
            # wandb takes no such name.
            continue
        fields: dict[str, Any] = {field: text}
        try:
            config = from_mapping(RunConfig, {group: fields} if group else fields, "test")
        except UserError:
            # A project that wandb would not take.
            continue
        write_config(folder / CONFIG, config)
        assert _read(folder) == config


@pytest.mark.slow
@runs(60, shrink=False)
@given(name=st.sampled_from(_leaves(RunConfig)), data=st.data())
def test_an_option_and_the_file_that_it_ends_in_say_the_same(folder: Path, name: str, data: st.DataObject) -> None:
    """Every option is given on the command line as its field is written, and read from the file of that run."""
    hints: Any = RunConfig
    for part in name.split("."):
        hints = typing.get_type_hints(hints)[part]
    value = data.draw(_values(hints).filter(lambda value: value is not None))
    parser = _parser()
    plain = list(value) if isinstance(value, tuple) else value
    text = plain if isinstance(plain, str) else _flow(plain)
    if text == "null":
        # It says that there is no value.
        return
    try:
        config = parser.build(RunConfig, parser.parse([f"--{name}={text}"]))
    except UserError:
        # A value that the field or its neighbours do not allow.
        return
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part)
    assert found == value
    _check_config(folder, config)


@runs(60, shrink=False)
@given(fitness=_groups(FitnessSettings), name=_TEXTS)
def test_a_space_of_any_name_and_weights_is_read_as_it_was_written(
    folder: Path, fitness: FitnessSettings, name: str
) -> None:
    tiny = load_space("mobilenet-tiny")
    try:
        space = dataclasses.replace(tiny, name=name, fitness=fitness)
    except UserError:
        space = dataclasses.replace(tiny, name=name)
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(space_to_mapping(space), sort_keys=False), encoding="utf-8")
    read: SearchSpace = load_space(str(path))
    assert read == space
    weights = folder / "fitness.yaml"
    weights.write_text(yaml.safe_dump(space_to_mapping(space)["fitness"], sort_keys=False), encoding="utf-8")
    assert load_settings(str(weights), tiny) == space.fitness


def test_the_mapping_of_a_configuration_is_of_the_types_of_its_fields() -> None:
    mapping = config_to_mapping(RunConfig())
    assert typed_fields(RunConfig, mapping).keys() == mapping.keys()
