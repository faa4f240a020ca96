import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import parsed
from helpers.networks.strategies import tiny_space

from fedpareto.cache.cache_file import Cache, CacheError, read_cache, remedy_of, write_cache
from fedpareto.cache.entries import make_entries
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import random_genes

SPACE = tiny_space()
WEIGHTS = FitnessSettings(entropy="prefix", effectiveness_weight=3.5, max_effectiveness=2.0)
CACHE = Cache(
    space=SPACE,
    entries=tuple(make_entries(SPACE, random_genes(SPACE, 6, np.random.default_rng(0)), WEIGHTS)),
    fitness=WEIGHTS,
    solver="nsga2",
    solver_settings={"population": 10, "limits": {"macs": None}},
)
Line = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cache.jsonl"
    write_cache(path, CACHE)
    return path


def _edit(path: Path, number: int, change: Callable[[Line], object]) -> None:
    """Change the JSON object on a line (1 is the header)."""
    lines = path.read_text().splitlines()
    value = json.loads(lines[number - 1])
    change(value)
    lines[number - 1] = json.dumps(value)
    path.write_text("\n".join(lines) + "\n")


def _refused(path: Path, *words: str) -> None:
    with pytest.raises(CacheError) as caught:
        read_cache(path, SPACE)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def test_a_cache_survives_its_file(path: Path) -> None:
    assert read_cache(path, SPACE) == CACHE


def test_a_file_is_a_header_and_one_entry_a_line_by_macs(path: Path) -> None:
    header, *entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert header["format"] == "fedpareto-cache"
    assert header["version"] == 1
    assert header["fingerprint"] == SPACE.fingerprint
    assert header["fitness"]["effectiveness_weight"] == 3.5
    assert header["entries"] == len(entries) == 6
    assert set(header["libraries"]) == {"fedpareto", "numpy", "pymoo"}
    assert [entry["macs"] for entry in entries] == sorted(entry["macs"] for entry in entries)
    assert [entry["architecture"] for entry in entries] == [e.architecture.to_json() for e in CACHE.entries]


@pytest.mark.parametrize("number", [2, 4, 7])
@pytest.mark.parametrize(
    ("field", "factor"),
    [("macs", 1.5), ("params", 0.5), ("activation_bytes", 2), ("fitness", 1 + 1e-6), ("rho", 1 - 1e-6)],
)
def test_an_altered_number_is_named_with_its_line(path: Path, number: int, field: str, factor: float) -> None:
    _edit(path, number, lambda entry: entry.update({field: entry[field] * factor}))
    _refused(path, f"{path}:{number}", f"{field} is", "recomputed")


@pytest.mark.parametrize("field", ["macs", "params", "activation_bytes", "fitness", "rho"])
@pytest.mark.parametrize("value", [None, "many", [1], True])
def test_a_number_that_is_none_is_named(path: Path, field: str, value: object) -> None:
    _edit(path, 3, lambda entry: entry.update({field: value}))
    _refused(path, f"{path}:3", field)
    _edit(path, 3, lambda entry: entry.pop(field))
    _refused(path, f"{path}:3", field)


@pytest.mark.parametrize("excess", [1, 1e-4])
def test_integers_have_no_tolerance(path: Path, excess: float) -> None:
    _edit(path, 2, lambda entry: entry.update(macs=entry["macs"] + excess))
    _refused(path, "macs is")


def test_a_number_within_rounding_of_another_machine_is_accepted(path: Path) -> None:
    _edit(path, 2, lambda entry: entry.update(fitness=entry["fitness"] * (1 + 1e-12)))
    assert read_cache(path, SPACE) == CACHE


def test_an_altered_architecture_is_refused(path: Path) -> None:
    def swap(entry: Line) -> None:
        entry["architecture"]["resolution"] = 8 if entry["architecture"]["resolution"] != 8 else 16

    _edit(path, 5, swap)
    _refused(path, f"{path}:5", "macs is")


def test_an_architecture_outside_the_space_is_named(path: Path) -> None:
    _edit(path, 5, lambda entry: entry["architecture"].update(resolution=32))
    _refused(path, f"{path}:5", "resolution is 32; allowed: 8, 12, 16")


def test_an_entry_without_an_architecture_is_named(path: Path) -> None:
    _edit(path, 5, lambda entry: entry.pop("architecture"))
    _refused(path, f"{path}:5", "architecture")


def test_altered_weights_are_noticed(path: Path) -> None:
    _edit(path, 1, lambda header: header["fitness"].update(depth_penalty=11.0))
    _refused(path, f"{path}:2", "fitness is")


@pytest.mark.parametrize("fitness", [3, "heavy", None, {"rho": 1}, {"entropy_weights": [1.0, 2.0]}])
def test_weights_that_are_none_are_refused(path: Path, fitness: object) -> None:
    _edit(path, 1, lambda header: header.update(fitness=fitness))
    _refused(path, "fitness")


def test_a_file_from_before_there_were_weights_of_kinds_and_blocks_is_read(path: Path) -> None:
    def of_old(header: Line) -> None:
        del header["fitness"]["kind_weights"], header["fitness"]["block_penalty"], header["digest"]

    cache = read_cache(path, tiny_space())
    _edit(path, 1, of_old)
    assert read_cache(path, tiny_space()) == cache


@pytest.mark.parametrize("field", ["entries", "fitness", "solver", "solver_settings"])
def test_a_header_that_lacks_a_field_names_it(path: Path, field: str) -> None:
    _edit(path, 1, lambda header: header.pop(field))
    _refused(path, f"{path}:1", field)


def test_solver_settings_that_are_no_mapping_are_refused(path: Path) -> None:
    _edit(path, 1, lambda header: header.update(solver_settings=3))
    _refused(path, "solver_settings")


@pytest.mark.parametrize("gaps", [None, (0.0, 0.5, 0.0, 1e-13, 12.25, 3.0)])
def test_gaps_survive_the_file(path: Path, gaps: tuple[float, ...] | None) -> None:
    cache = dataclasses.replace(CACHE, gaps=gaps)
    write_cache(path, cache)
    assert json.loads(path.read_text().splitlines()[0])["gaps"] == (None if gaps is None else list(gaps))
    assert read_cache(path, SPACE) == cache


def test_a_file_from_before_there_were_gaps_has_none(path: Path) -> None:
    _edit(path, 1, lambda header: (header.pop("gaps"), header.pop("digest")))
    assert read_cache(path, SPACE).gaps is None


@pytest.mark.parametrize(
    "gaps",
    [
        [0.0] * 5,
        [0.0] * 7,
        [],
        [0.0, 0.0, -1e-9, 0.0, 0.0, 0.0],
        [0.0, 0.0, "none", 0.0, 0.0, 0.0],
        [0.0, 0.0, None, 0.0, 0.0, 0.0],
        "small",
        0.0,
        {"2": 0.0},
    ],
    ids=str,
)
def test_altered_gaps_are_refused(path: Path, gaps: object) -> None:
    _edit(path, 1, lambda header: header.update(gaps=gaps))
    _refused(path, f"{path}:1", "gaps must be one number of at least 0 for each entry")


@pytest.mark.parametrize("number", range(1, 8))
def test_a_number_that_json_does_not_know_is_named_with_its_line(path: Path, number: int) -> None:
    for text in ("NaN", "Infinity", "-Infinity", "1e400"):
        lines = path.read_text().splitlines()
        lines[number - 1] = lines[number - 1].replace("{", '{"more": ' + text + ", ", 1)
        other = path.with_name("other.jsonl")
        other.write_text("\n".join(lines) + "\n")
        _refused(other, f"{other}:{number} is not valid JSON", text)


def _header_with(content: str, field: str, value: object) -> str:
    header, *entries = content.splitlines()
    return "\n".join([json.dumps({**json.loads(header), field: value}), *entries]) + "\n"


def test_a_header_with_any_other_value_is_refused(path: Path) -> None:
    content = path.read_text()
    for field, value in json.loads(content.splitlines()[0]).items():
        path.write_text(_header_with(content, field, value + 1 if isinstance(value, int) else f"{value}!"))
        _refused(path)
        path.write_text(_header_with(content, field, value))
        assert read_cache(path, SPACE) == CACHE


def test_a_cache_of_another_space_names_both(path: Path) -> None:
    other = dataclasses.replace(SPACE, name="mine", kernels=(3, 5, 7))
    with pytest.raises(CacheError, match=r"cache of mobilenet-tiny \(.*\), not of mine \(classes: 10"):
        read_cache(path, other)


def test_a_cache_of_other_classes_names_both(path: Path) -> None:
    with pytest.raises(CacheError, match=r"mobilenet-tiny \(classes: 10, .*mobilenet-tiny \(classes: 7, "):
        read_cache(path, SPACE.adapted(classes=7))


def test_another_version_is_named(path: Path) -> None:
    _edit(path, 1, lambda header: header.update(version=2))
    _refused(path, "version 2", "reads 1")


def test_a_file_of_something_else_is_no_cache(path: Path) -> None:
    _edit(path, 1, lambda header: header.pop("format"))
    _refused(path, "is not a cache file")


def test_a_file_that_lacks_lines_is_cut_short(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-2]) + "\n")
    _refused(path, "cut short", "announces 6 and has 4 entries")


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    whole = path.read_text()
    for length in range(0, len(whole) - 1, 97):
        path.write_text(whole[:length])
        _refused(path)


def test_a_line_that_is_no_json_is_named(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "not json", *lines[4:]]))
    _refused(path, f"{path}:4 is not valid JSON")


def test_a_line_that_is_no_object_is_named(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "[1, 2]", *lines[4:]]))
    _refused(path, f"{path}:4 must be a JSON object")


def test_an_empty_file_says_how_to_build_one(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    _refused(path, "is empty", "build one with build-cache")


@pytest.mark.parametrize("name", ["my spaces/it's $mine.yaml", "-x.yaml", "[red].yaml", "mobilenet-tiny"])
def test_a_cache_of_another_space_is_answered_with_a_command_that_names_the_space_as_its_user_does(
    path: Path, name: str
) -> None:
    other = dataclasses.replace(SPACE, name="mine", kernels=(3, 5, 7), classes=7)
    with pytest.raises(CacheError) as caught:
        read_cache(path, other, remedy_of(path, name, 7))
    given = parsed(str(caught.value).rsplit("with: ", 1)[1])
    assert given is not None
    assert (given.space, given.classes) == (name, 7)
    assert not Path(given.output).exists()
    assert Path(given.output).parent == path.parent


def test_a_cache_without_entries_is_refused(path: Path) -> None:
    _edit(path, 1, lambda header: header.update(entries=0))
    path.write_text(path.read_text().splitlines()[0] + "\n")
    _refused(path)


def test_entries_out_of_order_are_refused_or_sorted(path: Path) -> None:
    header, first, *others = path.read_text().splitlines()
    path.write_text("\n".join([header, *others, first]) + "\n")
    try:
        entries = read_cache(path, SPACE).entries
    except CacheError:
        return
    assert entries == CACHE.entries


def test_a_missing_file_and_one_of_bytes_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_cache(tmp_path / "nowhere.jsonl", SPACE)
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_cache(tmp_path / "binary", SPACE)


def test_a_cache_that_cannot_be_written_leaves_the_old_file(path: Path) -> None:
    before = path.read_text()
    unwritable = dataclasses.replace(CACHE, solver_settings={"population": object()})
    with pytest.raises(TypeError):
        write_cache(path, unwritable)
    assert path.read_text() == before
    assert os.listdir(path.parent) == [path.name]


def test_an_old_file_is_replaced_and_not_rewritten_in_place(path: Path) -> None:
    before = path.read_text()
    reader = path.with_name("held-open")
    reader.hardlink_to(path)
    write_cache(path, dataclasses.replace(CACHE, solver="other"))
    assert reader.read_text() == before
    assert json.loads(path.read_text().splitlines()[0])["solver"] == "other"


def test_the_same_cache_is_written_with_the_same_entries(path: Path) -> None:
    again = path.with_name("again.jsonl")
    write_cache(again, read_cache(path, SPACE))
    assert again.read_text().splitlines()[1:] == path.read_text().splitlines()[1:]
