import dataclasses
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.runs.federation import MICRO, micro_space
from helpers.runs.simulation import largest, random_tensors, same_bytes, smallest

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.digests import DIGESTS
from fedpareto.supernet.networks.weights import extract
from fedpareto.training.aggregation.update_bounds import PastRound
from fedpareto.training.runs.checkpoint import (
    SERVER,
    STATE,
    SUPERNET,
    CheckpointError,
    best_checkpoint,
    branch_file,
    checkpoint_folder,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    tidy_checkpoints,
)
from fedpareto.training.runs.models import Branch, Models
from fedpareto.training.runs.state import Best, Counts, Origin, RunState
from fedpareto.training.traffic import Traffic

_BEST = Best(5, 0.625)
_CONFIG = {"seed": 3, "client": {"lr": 0.1}, "clients": {"max_macs": ["1M"]}}


def _state(number: int = 7, best: Best | None = _BEST) -> RunState:
    return RunState(
        round=number,
        counts=Counts((1, 2, 0), (0, 1, 2)),
        trained=(4, 0, 9),
        failures={"shape": 2, "non-finite": 1},
        best=best,
        traffic=Traffic(10**12, 123),
        wandb_id="abc",
        exposure=(0.5, 0.1 + 0.2, 3.0),
        past=(PastRound(0.0125, 0.1, 2.25), PastRound(0.1 + 0.2, 0.05, -1.0)),
    )


def _save(run: Path, number: int = 7, seed: int = 0, best: Best | None = _BEST) -> Path:
    return save_checkpoint(run, _state(number, best), _CONFIG, Models(random_tensors(seed)))


def _names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("state", [_state(), RunState(0, Counts.zero(2), (0,) * 3)])
def test_tensors_velocity_state_and_configuration_come_back_as_they_were(tmp_path: Path, state: RunState) -> None:
    tensors, velocity = random_tensors(1), random_tensors(2)
    folder = save_checkpoint(tmp_path, state, _CONFIG, Models(tensors, velocity))
    found = load_checkpoint(folder, MICRO)
    assert found.state == state
    assert found.config == _CONFIG
    assert same_bytes(found.models.supernet, tensors)
    assert found.models.velocity is not None
    assert same_bytes(found.models.velocity, velocity)
    assert list(found.models.supernet) == list(tensors)


def test_without_server_momentum_there_is_no_velocity(tmp_path: Path) -> None:
    assert load_checkpoint(_save(tmp_path), MICRO).models.velocity is None


def test_a_checkpoint_is_a_folder_named_after_its_round_without_pickles(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, _state(120), _CONFIG, Models(random_tensors(), random_tensors()))
    assert folder == checkpoint_folder(tmp_path, 120) == tmp_path / "checkpoints" / "round-000120"
    assert sorted(path.name for path in folder.iterdir()) == [DIGESTS, SERVER, STATE, SUPERNET]
    json.loads((folder / STATE).read_text())
    assert _names(tmp_path) == ["round-000120"]


def test_all_files_of_a_checkpoint_may_be_read_by_the_same_people(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = _save(tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o640}


def test_a_checkpoint_of_the_same_round_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    _save(tmp_path, seed=0)
    found = load_checkpoint(_save(tmp_path, seed=1), MICRO)
    assert same_bytes(found.models.supernet, random_tensors(1))


@pytest.mark.parametrize("name", [SUPERNET, SERVER, STATE])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_file_cut_short_is_an_error_that_names_the_folder_and_what_to_do(
    tmp_path: Path, name: str, share: float
) -> None:
    folder = save_checkpoint(tmp_path, _state(), _CONFIG, Models(random_tensors(), random_tensors()))
    size = (folder / name).stat().st_size
    os.truncate(folder / name, int(share * size))
    _refused(folder, f"({name}: its digest does not fit); restore it from a copy, or train anew")
    _save(tmp_path, number=3)
    _refused(folder, "; remove that folder to resume from the checkpoint before it, round-000003")


def _refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder, MICRO)
    for word in (f"checkpoint {folder} is damaged (", *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [SUPERNET, STATE, DIGESTS])
def test_a_missing_file_is_an_error_that_names_the_folder_and_what_to_do(tmp_path: Path, name: str) -> None:
    folder = _save(tmp_path)
    (folder / name).unlink()
    _refused(folder, name)


@pytest.mark.parametrize("name", [SUPERNET, SERVER, STATE, DIGESTS])
@pytest.mark.parametrize("kind", ["folder", "link to nowhere"])
def test_what_is_no_file_is_an_error_that_names_it(tmp_path: Path, name: str, kind: str) -> None:
    folder = save_checkpoint(tmp_path, _state(), _CONFIG, Models(random_tensors(), random_tensors()))
    (folder / name).unlink()
    if kind == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to("nowhere")
    _refused(folder, name)


def test_any_flipped_bit_of_any_file_is_found(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, _state(), _CONFIG, Models(random_tensors(), random_tensors(), _branches()))
    whole, generator = load_checkpoint(folder, MICRO), np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for _ in range(20):
            place, bit = generator.integers(len(content)), 1 << int(generator.integers(8))
            damaged = bytearray(content)
            damaged[place] ^= int(bit)
            path.write_bytes(damaged)
            _refused(folder)
        path.write_bytes(content)
    assert same_bytes(load_checkpoint(folder, MICRO).models.supernet, whole.models.supernet)


def _as_of_version_1(folder: Path, edit: Callable[[dict[str, Any]], object] = lambda body: None) -> Path:
    """Make a checkpoint one of an earlier program: without digests, and edited."""
    (folder / DIGESTS).unlink()
    body = json.loads((folder / STATE).read_text()) | {"version": 1}
    edit(body)
    (folder / STATE).write_text(json.dumps(body))
    return folder


def test_a_checkpoint_from_before_there_were_digests_is_read(tmp_path: Path) -> None:
    found = load_checkpoint(_as_of_version_1(_save(tmp_path)), MICRO)
    assert found.state == _state()
    assert same_bytes(found.models.supernet, random_tensors())


def _error_of(folder: Path) -> str | None:
    try:
        load_checkpoint(folder, MICRO)
    except CheckpointError as error:
        return str(error)
    return None


_ODD = [None, True, -1, 1.5, "1", [], {}, [-1], [None], ["a"], {"a": -1}, {"round": 1}, 10**40, -1e300]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RunState)])
def test_a_field_of_another_type_or_out_of_range_is_named(tmp_path: Path, field: str) -> None:
    folder = _as_of_version_1(_save(tmp_path))
    body = json.loads((folder / STATE).read_text())
    refused = 0
    for value in _ODD:
        (folder / STATE).write_text(json.dumps({**body, "state": {**body["state"], field: value}}))
        error = _error_of(folder)
        if error is None:
            kept = dataclasses.asdict(load_checkpoint(folder, MICRO).state)[field]
            assert json.loads(json.dumps(kept)) == value
        else:
            assert f"state.{field}" in error
            assert "\n" not in error
            refused += 1
    assert refused >= 8


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_found_without_a_digest(tmp_path: Path, value: float) -> None:
    for index, name in enumerate(random_tensors()):
        tensors = random_tensors()
        tensors[name].view(-1)[index % tensors[name].numel()] = value
        folder = save_checkpoint(tmp_path, _state(), _CONFIG, Models(tensors))
        _refused(_as_of_version_1(folder), f"{SUPERNET}: {name} holds a value that is not finite")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_tensors_of_another_type_are_found_without_a_digest(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in random_tensors().items()}
    folder = save_checkpoint(tmp_path, _state(), _CONFIG, Models(tensors))
    _refused(_as_of_version_1(folder), f"holds {dtype}; it must hold torch.float32")


@pytest.mark.parametrize("length", [0, 7, 8, 2**32, 2**62, 2**64 - 1])
def test_a_header_that_lies_about_its_length_is_found_without_a_digest(tmp_path: Path, length: int) -> None:
    folder = _as_of_version_1(_save(tmp_path))
    content = (folder / SUPERNET).read_bytes()
    (folder / SUPERNET).write_bytes(length.to_bytes(8, "little") + content[8:])
    _refused(folder, SUPERNET)


def test_momentum_that_the_configuration_names_is_not_missed_in_silence(tmp_path: Path) -> None:
    config = {**_CONFIG, "server": {"momentum": 0.9}}
    folder = save_checkpoint(tmp_path, _state(), config, Models(random_tensors(), random_tensors()))
    (folder / SERVER).unlink()
    _refused(_as_of_version_1(folder), f"{SERVER} is missing")


@pytest.mark.parametrize("body", ["[]", "{}", '{"state": 3}', '{"version": 1, "state": {"round": 1}, "config": {}}'])
def test_a_state_of_another_form_is_an_error_that_names_the_folder(tmp_path: Path, body: str) -> None:
    folder = _save(tmp_path)
    (folder / STATE).write_text(body)
    _refused(folder, STATE)
    (folder / DIGESTS).unlink()
    _refused(folder, STATE)


def test_a_checkpoint_from_before_updates_were_judged_remembers_no_round(tmp_path: Path) -> None:
    folder = _as_of_version_1(_save(tmp_path), lambda body: body["state"].pop("past"))
    assert load_checkpoint(folder, MICRO).state == dataclasses.replace(_state(), past=())


def test_a_checkpoint_from_before_there_was_privacy_has_no_exposure(tmp_path: Path) -> None:
    folder = _as_of_version_1(_save(tmp_path), lambda body: body["state"].pop("exposure"))
    assert load_checkpoint(folder, MICRO).state == dataclasses.replace(_state(), exposure=())


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = _as_of_version_1(_save(tmp_path), lambda body: body.update(version=3))
    _refused(folder, "has version 3; this program reads 1 and 2")


def test_a_checkpoint_of_another_space_is_refused(tmp_path: Path) -> None:
    folder = _save(tmp_path)
    for other in (micro_space(expands=(2, 4)), micro_space(depths=(1,)), MICRO.adapted(classes=4)):
        with pytest.raises(CheckpointError, match="holds another network than the supernet of micro"):
            load_checkpoint(folder, other)


_WRITE_WITH_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from helpers.runs.simulation import random_tensors
from fedpareto.training.runs.checkpoint import CheckpointError, save_checkpoint
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import Counts, RunState

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
state = RunState(2, Counts.zero(2), (0,))
try:
    save_checkpoint(Path(sys.argv[1]), state, {"padding": "x" * 200_000}, Models(random_tensors()))
except CheckpointError as error:
    print(error)
"""


# The supernet has about 100 kB: one limit stops it half-way, the other the state that follows it.
@pytest.mark.slow
@pytest.mark.parametrize("limit", [50_000, 150_000])
def test_a_write_that_fails_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path: Path, limit: int) -> None:
    _save(tmp_path, number=1)
    done = subprocess.run(
        [sys.executable, "-c", _WRITE_WITH_LITTLE_ROOM, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cannot write checkpoint {checkpoint_folder(tmp_path, 2)}: ")
    assert f"the last good checkpoint is {checkpoint_folder(tmp_path, 1)}; free space" in done.stdout
    assert done.stdout.count("\n") == 1
    assert _names(tmp_path) == ["round-000001"]
    assert same_bytes(load_checkpoint(newest_checkpoint(tmp_path), MICRO).models.supernet, random_tensors())


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match=f"cannot write checkpoint {checkpoint_folder(tmp_path, 7)}"):
        _save(tmp_path)


def test_half_a_checkpoint_of_a_killed_process_is_no_checkpoint_and_is_cleared_away(tmp_path: Path) -> None:
    _save(tmp_path, number=1)
    half = tmp_path / "checkpoints" / ".round-000002.tmp"
    half.mkdir()
    (half / SUPERNET).write_bytes(b"half")
    assert newest_checkpoint(tmp_path).name == "round-000001"
    _save(tmp_path, number=2)
    assert _names(tmp_path) == ["round-000001", "round-000002"]
    assert same_bytes(load_checkpoint(newest_checkpoint(tmp_path), MICRO).models.supernet, random_tensors())


@pytest.mark.parametrize(
    ("keep", "best", "kept"),
    [
        (2, None, [9, 10]),
        (1, Best(3, 0.5), [3, 10]),
        (2, Best(10, 0.5), [9, 10]),
        (3, Best(1, 0.5), [1, 8, 9, 10]),
        (50, None, list(range(1, 11))),
    ],
)
def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path, keep: int, best: Best | None, kept: list[int]) -> None:
    for number in range(1, 11):
        checkpoint_folder(tmp_path, number).mkdir(parents=True)
    prune_checkpoints(tmp_path, keep, best)
    assert _names(tmp_path) == [f"round-{number:06d}" for number in kept]


def test_the_newest_checkpoint_is_that_of_the_last_round(tmp_path: Path) -> None:
    for number in (2, 10, 9):
        checkpoint_folder(tmp_path, number).mkdir(parents=True)
    assert newest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 10)


def test_the_best_checkpoint_is_the_one_the_newest_state_names(tmp_path: Path) -> None:
    _save(tmp_path, number=5, best=Best(5, 0.6))
    _save(tmp_path, number=6, best=Best(5, 0.6))
    assert best_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 5)


def test_without_an_evaluation_the_newest_checkpoint_is_the_best(tmp_path: Path) -> None:
    for number in (1, 2):
        _save(tmp_path, number=number, best=None)
    assert best_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 2)


def test_a_run_without_a_checkpoint_is_an_error_of_one_line(tmp_path: Path) -> None:
    for find in (newest_checkpoint, best_checkpoint):
        with pytest.raises(UserError, match="has no checkpoint yet"):
            find(tmp_path)


def _branches(seed: int = 3) -> dict[str, Branch]:
    return {
        name: Branch(architecture, extract(MICRO, random_tensors(seed), architecture))
        for name, architecture in (("stage0-width", smallest()), ("stage1-kernel", largest()))
    }


def test_networks_beside_the_supernet_come_back_from_a_file_each(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, _state(), _CONFIG, Models(random_tensors(), None, _branches()))
    assert {path.name for path in folder.iterdir()} == {DIGESTS, SUPERNET, STATE, *map(branch_file, _branches())}
    found = load_checkpoint(folder, MICRO)
    assert found.models.branches.keys() == _branches().keys()
    for name, branch in _branches().items():
        assert found.models.branches[name].architecture == branch.architecture
        assert same_bytes(found.models.branches[name].tensors, branch.tensors)
        assert list(found.models.branches[name].tensors) == list(branch.tensors)


@pytest.mark.parametrize("damage", ["missing", "short", "other"])
def test_a_damaged_network_beside_the_supernet_is_an_error(tmp_path: Path, damage: str) -> None:
    folder = save_checkpoint(tmp_path, _state(), _CONFIG, Models(random_tensors(), None, _branches()))
    path, other = (folder / branch_file(name) for name in _branches())
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        os.truncate(path, 100)
    else:
        path.write_bytes(other.read_bytes())
    _refused(folder, path.name)
    words = {"missing": "is missing", "short": "is cut short", "other": "holds another network than the branch"}
    _refused(_as_of_version_1(folder), f"{path.name} {words[damage]}")


@pytest.mark.parametrize("origin", [Origin(), Origin(4, 10**13), None])
def test_where_the_schedule_began_comes_back(tmp_path: Path, origin: Origin | None) -> None:
    state = dataclasses.replace(_state(), origin=origin)
    assert load_checkpoint(save_checkpoint(tmp_path, state, _CONFIG, Models(random_tensors())), MICRO).state == state


def test_a_checkpoint_from_before_there_were_searches_is_read(tmp_path: Path) -> None:
    folder = _as_of_version_1(_save(tmp_path), lambda body: (body.pop("branches"), body["state"].pop("origin")))
    found = load_checkpoint(folder, MICRO)
    assert found.state == _state()
    assert found.models.branches == {}


def test_a_state_names_every_field(tmp_path: Path) -> None:
    body = json.loads((_save(tmp_path) / STATE).read_text())
    fields = {field.name for field in dataclasses.fields(RunState)}
    assert body["state"].keys() == fields - {"traffic"} | {"bytes_up", "bytes_down"}
    assert body["state"]["counts"] == {"smallest": [1, 2, 0], "largest": [0, 1, 2]}


def _strays(run: Path) -> dict[str, bool]:
    """Put what is no checkpoint beside the checkpoints; return the names, and which are folders."""
    strays = {"round-x": True, "round-": True, "round-7": True, "round-0000099": True, "round-000008 (copy)": True}
    strays |= {"round-000042": False, "round-000008.bak": True, ".round-000009": True, "notes.txt": False}
    for name, folder in strays.items():
        path = run / "checkpoints" / name
        path.mkdir(parents=True) if folder else path.write_text("somebody's own")
    return strays


def test_what_is_no_checkpoint_is_left_alone_and_confuses_nobody(tmp_path: Path) -> None:
    for number in (5, 7, 1_000_000):
        _save(tmp_path, number, best=None)
    strays = _strays(tmp_path)
    assert newest_checkpoint(tmp_path).name == "round-1000000"
    tidy_checkpoints(tmp_path)
    prune_checkpoints(tmp_path, 1, None)
    assert set(_names(tmp_path)) == {*strays, "round-1000000"}


def test_a_run_with_nothing_but_strays_has_no_checkpoint(tmp_path: Path) -> None:
    _strays(tmp_path)
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        newest_checkpoint(tmp_path)


def test_what_killed_processes_left_of_checkpoints_is_tidied_up(tmp_path: Path) -> None:
    for number in (5, 6, 7):
        _save(tmp_path, number, best=None)
    parent = tmp_path / "checkpoints"
    # In the middle of a write, of a removal, of a replacement, and after one.
    (parent / ".round-000008.tmp").mkdir()
    (parent / ".round-000008.tmp" / "supernet.safetensors").write_text("half")
    (parent / "round-000005").rename(parent / ".round-000005.tmp")
    (parent / "round-000006").rename(parent / ".round-000006.old")
    (parent / ".round-000007.old").mkdir()
    tidy_checkpoints(tmp_path)
    assert set(os.listdir(parent)) == {"round-000006", "round-000007"}
    assert load_checkpoint(parent / "round-000006", MICRO).state.round == 6
    tidy_checkpoints(tmp_path / "gone")


def test_a_checkpoint_that_cannot_be_removed_or_is_a_link_stays_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (5, 6, 7):
        _save(tmp_path, number, best=None)
    parent = tmp_path / "checkpoints"
    (parent / "round-000005").rename(tmp_path / "elsewhere")
    (parent / "round-000005").symlink_to(tmp_path / "elsewhere")

    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    prune_checkpoints(tmp_path, 1, None)
    assert set(_names(tmp_path)) == {"round-000005", "round-000006", "round-000007"}
