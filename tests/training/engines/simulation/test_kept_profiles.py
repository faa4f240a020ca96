"""What was measured of ways to train is kept, and taken where nothing has changed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs.federation import MICRO, micro_recipe, micro_space
from helpers.runs.simulation import micro_entries
from helpers.runs.tuning import Rates, body_of, only_file

from fedpareto.supernet.common.formats.json_text import sealed, unsealed
from fedpareto.training.config.execution import ExecutionConfig
from fedpareto.training.engines.simulation.tuning import TunedProfile
from fedpareto.training.execution.profile import Profile

#: What is chosen first: all else is measured against it.
_PLAIN = Profile()
#: Leaves only the memory format to be chosen, between two profiles.
_FORMAT_ONLY = dataclasses.replace(_PLAIN.chosen(), memory_format=None)
_CONTIGUOUS = dataclasses.replace(_PLAIN, memory_format="contiguous")

pytestmark = pytest.mark.usefixtures("folder")


#: A profile that no measurement of these tests chooses.
_EDITED = Profile("bf16", "contiguous", fused=False, workers=3, threads=5)


def _kept(folder: Path, clock: Rates) -> Path:
    """Measure once and return the file."""
    clock.choose()
    return only_file(folder)


def test_a_kept_profile_is_returned_without_being_measured(folder: Path, clock: Rates) -> None:
    path = _kept(folder, clock)
    body = unsealed(body_of(path), str(path))
    path.write_text(json.dumps(sealed({**body, "profile": dataclasses.asdict(_EDITED), "why": "it was edited"})))
    content = path.read_bytes()
    clock.measured.clear()
    choice, remarks = clock.choose()
    assert choice == TunedProfile(_EDITED, f"it was edited; measured before, kept in {path}")
    assert (clock.measured, remarks) == ([], [])
    assert path.read_bytes() == content
    assert list(folder.iterdir()) == [path]


def _changed(**fields: object) -> Callable[[dict[str, Any]], str]:
    return lambda body: json.dumps({**body, **fields})


def _without(*names: str) -> Callable[[dict[str, Any]], str]:
    return lambda body: json.dumps({name: value for name, value in body.items() if name not in names})


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda body: "", id="empty"),
        pytest.param(lambda body: json.dumps(body)[:-20], id="cut short"),
        pytest.param(lambda body: "\0" * 100, id="zeros"),
        pytest.param(lambda body: "\udcff\udcfe", id="not text"),
        pytest.param(lambda body: "[]", id="a list"),
        pytest.param(lambda body: "3", id="a number"),
        pytest.param(lambda body: "{}", id="nothing"),
        pytest.param(_without("profile"), id="no profile"),
        pytest.param(_without("why"), id="no reason"),
        pytest.param(_without("machine"), id="no machine"),
        pytest.param(_changed(why="altered"), id="an altered reason"),
        pytest.param(_changed(profile=dataclasses.asdict(_EDITED)), id="an altered profile"),
        pytest.param(lambda body: json.dumps(body)[:-1] + ', "why": "twice"}', id="a field that is there twice"),
        pytest.param(lambda body: "[" * 100_000, id="deep nesting"),
        pytest.param(_changed(profile=["fp32"]), id="a list for a profile"),
        pytest.param(_changed(profile=None), id="no value for a profile"),
        pytest.param(_changed(profile={"precision": "fp32", "speed": 9}), id="an unknown setting"),
        pytest.param(_changed(version=0), id="another version"),
        pytest.param(_changed(machine="another machine"), id="another machine"),
        pytest.param(_changed(gpu="another GPU"), id="another GPU"),
        pytest.param(_changed(threads=77), id="another number of threads"),
        pytest.param(_changed(torch="1.0"), id="another torch"),
        pytest.param(_changed(space="another space"), id="another space"),
        pytest.param(_changed(macs=1), id="another network"),
        pytest.param(_changed(batch=9), id="another batch"),
        pytest.param(_changed(asked={}), id="another configuration"),
    ],
)
def test_a_damaged_or_foreign_file_is_measured_anew_and_replaced(
    folder: Path, clock: Rates, damage: Callable[[dict[str, Any]], str]
) -> None:
    path = _kept(folder, clock)
    whole = path.read_bytes()
    path.write_bytes(damage(body_of(path)).encode(errors="surrogateescape"))
    clock.measured.clear()
    choice, remarks = clock.choose()
    assert choice.profile == _PLAIN
    assert "measured before" not in choice.reason
    assert len(clock.compared) == 4
    assert remarks == []
    assert path.read_bytes() == whole
    assert list(folder.iterdir()) == [path]


def test_what_makes_a_difference_has_a_file_of_its_own(
    folder: Path, clock: Rates, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.choose()
    clock.choose(precision="fp32")
    clock.choose(ExecutionConfig(fused=False))
    clock.choose(ExecutionConfig(workers=1))
    clock.choose(recipe=micro_recipe(batch_size=16))
    clock.choose(recipe=micro_recipe(dataclasses.replace(MICRO, classes=7)))
    clock.choose(recipe=micro_recipe(micro_space(name="other")))
    clock.choose(entries=micro_entries()[:1])
    clock.machine.count = 2
    clock.choose()
    monkeypatch.setattr(torch, "__version__", "99.0")
    clock.choose()
    names = [path.name for path in folder.iterdir()]
    assert len(names) == 10
    assert sum(name.startswith("other-") for name in names) == 1


def test_where_nothing_can_be_written_the_profile_is_chosen_with_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Rates
) -> None:
    # A file where the folder would be: that refuses the superuser, too.
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(blocked))
    choice, remarks = clock.choose()
    assert choice.profile == _PLAIN
    (remark,) = remarks
    assert remark.startswith(f"cannot write {blocked}/profiles/micro-")
    assert remark.endswith("; the profile is not kept")
    assert blocked.read_text() == ""


def test_a_folder_in_place_of_the_file_is_a_remark(folder: Path, clock: Rates) -> None:
    path = _kept(folder, clock)
    path.unlink()
    path.mkdir()
    choice, remarks = clock.choose()
    assert choice.profile == _PLAIN
    (remark,) = remarks
    assert remark.startswith(f"cannot write {path}: ")
    assert list(folder.iterdir()) == [path]
