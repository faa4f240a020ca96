"""Which files and folders a configuration names, and what becomes of each in a run."""

import dataclasses
import json
import os
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.configs import OTHER
from helpers.runs.federation import MICRO, micro_cache, write_micro
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.cache.cache_file import write_cache
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.space_file import space_to_mapping
from fedpareto.training.config.inputs import (
    ORIGINS,
    PLACES,
    absolute,
    anchored,
    check_paths,
    inputs,
    named,
    portable,
    read_inputs,
    relocated,
    replaced,
    with_equal_inputs,
    with_own_inputs,
)
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.runs.folder import CACHE, SPACE

#: Texts of a configuration that name no file: a new field with text is one of these or one of
#: ``training/config/inputs.py``.
_NO_PATHS = {
    "compute",
    "device",
    "data.name",
    "data.image_column",
    "data.label_column",
    "data.client_column",
    "clients.sampler",
    "server.aggregation",
    "tracking.also",
    "clients.max_macs",
    "clients.max_memory",
    "clients.macs_cap",
    "clients.max_latency",
    "dfnas.macs_target",
    "decnas.budget",
    "tracking.project",
    "flower.address",
}

_PATHS = (*inputs(), *PLACES, *ORIGINS)

#: What files are called, among others.
_NAMES = st.text("ab .-_'é[]0", min_size=1, max_size=9)
_FOLDERS = st.lists(_NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4).map(
    lambda parts: Path("/", *parts)
)


def _texts(cls: type, prefix: str = "") -> Iterator[str]:
    """Yield the names of all fields, also those of groups, that hold free text."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _texts(typing.cast(type, kind), f"{prefix}{field.name}.")
        elif kind is str or str in typing.get_args(kind):
            yield f"{prefix}{field.name}"


def test_every_text_of_a_configuration_is_known_to_be_a_path_or_none() -> None:
    assert sorted(_texts(RunConfig)) == sorted([*_PATHS, *_NO_PATHS])
    assert len(set(_PATHS)) == len(_PATHS)


def test_copies_of_a_run_have_names_of_their_own() -> None:
    assert len(set(inputs().values())) == len(inputs())
    assert (inputs()["space"], inputs()["cache"]) == (SPACE, CACHE)


def _all_named(folder: Path) -> RunConfig:
    """Return a configuration that names every file it can, in ``folder``."""
    # clients.file has no other limits beside it.
    none = {"max_macs": (), "max_memory": (), "max_latency": (), "macs_distribution": "listed"}
    clients = dataclasses.replace(OTHER.clients, file="clients.jsonl", **none)  # type: ignore[arg-type]
    config = dataclasses.replace(OTHER, clients=clients)
    return replaced(config, {name: str(folder / f"{name}.file") for name in inputs()})


@pytest.mark.parametrize("name", _PATHS)
@pytest.mark.parametrize("empty", ["", " ", "\t"])
def test_an_empty_path_is_an_unset_variable_not_the_working_folder(name: str, empty: str) -> None:
    config = replaced(_all_named(Path("x")), {name: empty})
    with pytest.raises(UserError, match=f"^{name} is empty, as if a variable was not set") as caught:
        check_paths(config)
    assert "\n" not in str(caught.value)


def test_paths_that_are_named_or_left_out_are_fine() -> None:
    check_paths(RunConfig())
    check_paths(_all_named(Path("x")))


@pytest.mark.parametrize("name", PLACES)
def test_a_place_means_the_same_from_another_working_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("images", "./images", "a/../images", str(tmp_path / "images")):
        value = named(anchored(replaced(OTHER, {name: path})), name)
        assert value == str(tmp_path / "images")
    assert absolute("") == str(tmp_path)


def test_a_link_to_a_place_stays_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk" / "images").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "images")
    monkeypatch.chdir(tmp_path)
    assert absolute("link") == str(tmp_path / "link")
    # Beyond a link, ".." is the folder of what it points to.
    assert absolute("link/../images") == str(tmp_path / "disk" / "images")


@given(_FOLDERS, _FOLDERS)
def test_a_run_finds_its_copies_wherever_its_folder_is(before: Path, after: Path) -> None:
    config = dataclasses.replace(with_own_inputs(_all_named(Path("elsewhere")), before), output=str(before))
    assert {name: named(config, name) for name in inputs()} == {
        name: str(before / own) for name, own in inputs().items()
    }
    moved = dataclasses.replace(relocated(config, config.output, after), output=str(after))
    assert {name: named(moved, name) for name in inputs()} == {name: str(after / own) for name, own in inputs().items()}
    same, again = portable(config_to_mapping(config)), portable(config_to_mapping(moved))
    assert {**same, "output": None} == {**again, "output": None}


@pytest.mark.parametrize("name", inputs())
def test_a_copy_is_not_taken_for_a_file_of_its_name_in_the_working_folder(name: str, tmp_path: Path) -> None:
    own = with_own_inputs(_all_named(tmp_path), tmp_path / "run")
    own = dataclasses.replace(own, output=str(tmp_path / "run"))
    other = replaced(own, {name: inputs()[name]})
    assert portable(config_to_mapping(own)) != portable(config_to_mapping(other))


@given(_FOLDERS, _FOLDERS)
def test_files_outside_of_a_run_stay_where_they_are(before: Path, after: Path) -> None:
    config = dataclasses.replace(_all_named(Path("/elsewhere/and/far")), output=str(before))
    assert relocated(config, config.output, after) == config
    assert portable(config_to_mapping(config)) == config_to_mapping(config)
    assert relocated(config, None, after) == config


def test_what_is_not_named_has_no_copy(tmp_path: Path) -> None:
    assert with_own_inputs(RunConfig(), tmp_path) == RunConfig()
    assert read_inputs(RunConfig()) == {}
    assert named(RunConfig(), "space") is None
    assert named(RunConfig(space="mine.yaml"), "space") == "mine.yaml"


@pytest.mark.parametrize("name", [name for name in inputs() if name not in ("space", "cache")])
def test_a_file_is_copied_whole(name: str, tmp_path: Path) -> None:
    config = _all_named(tmp_path)
    for each in inputs():
        (tmp_path / f"{each}.file").write_text(f"text of {each}\nß\n", encoding="utf-8")
    assert read_inputs(config)[inputs()[name]] == f"text of {name}\nß\n"
    (tmp_path / f"{name}.file").unlink()
    with pytest.raises(UserError, match=f"cannot read {tmp_path}/{name}.file"):
        read_inputs(config)


def _write_all(folder: Path) -> RunConfig:
    """Write a space, a cache and texts for all else; return a configuration that names them."""
    space, cache = write_micro(folder)
    config = replaced(_all_named(folder), {"space": str(space), "cache": str(cache)})
    for name in inputs():
        if name not in ("space", "cache"):
            (folder / f"{name}.file").write_text(name)
    return config


def _own(config: RunConfig, run: Path) -> RunConfig:
    """Write a run's copies of what a configuration names; return the configuration that names those."""
    for own in inputs().values():
        (run / own).parent.mkdir(parents=True, exist_ok=True)
    (run / SPACE).write_text(json.dumps(space_to_mapping(MICRO)))
    write_cache(run / CACHE, micro_cache())
    for name, text in read_inputs(config).items():
        (run / name).write_text(text)
    return with_own_inputs(config, run)


@pytest.mark.parametrize("name", inputs())
def test_a_file_that_is_named_again_is_the_runs_copy_if_it_holds_the_same(name: str, tmp_path: Path) -> None:
    config, run = _write_all(tmp_path), tmp_path / "run"
    own = _own(config, run)
    again = replaced(own, {name: str(named(config, name))})
    assert with_equal_inputs(again, [name], run, MICRO) == own
    # With anything else in it, or gone, it stays what was named, for the command to refuse.
    path = Path(str(named(config, name)))
    if name == "space":
        path.write_text(json.dumps({**space_to_mapping(MICRO), "kernels": [3]}))
    elif name == "cache":
        write_cache(path, micro_cache(entries=3))
    else:
        path.write_text("else")
    assert with_equal_inputs(again, [name], run, MICRO) == again
    os.unlink(path)
    assert with_equal_inputs(again, [name], run, MICRO) == again
