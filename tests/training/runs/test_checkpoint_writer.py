"""Checkpoints written beside the training."""

import threading
from collections.abc import ItemsView, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.processes import PATIENCE
from helpers.runs.federation import MICRO
from helpers.runs.simulation import Recorder, checkpoint_names, largest, random_tensors, same_bytes

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.runs.checkpoint import CheckpointError, checkpoint_folder, load_checkpoint, newest_checkpoint
from fedpareto.training.runs.checkpoint_writer import CheckpointWriter
from fedpareto.training.runs.models import Branch, Models
from fedpareto.training.runs.state import Best, Counts, RunState

_CONFIG = {"seed": 3}


def _state(number: int, best: Best | None = None) -> RunState:
    return RunState(number, Counts((1, 0), (0, 1)), (2, 3), best=best)


def _writer(run: Path, tracker: Recorder | None = None, keep: int = 50) -> CheckpointWriter:
    return CheckpointWriter(run, _CONFIG, keep, tracker or Recorder())


class _Looking(Recorder):
    """Remembers whether a checkpoint could be read when the tracker was told of it."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[int] = []

    def checkpoint(self, folder: Path, aliases: list[str]) -> None:  # type: ignore[override]
        super().checkpoint(folder, aliases)
        self.rounds.append(load_checkpoint(folder, MICRO).state.round)


class _Gated(dict[str, Any]):
    """A mapping, the configuration if none is given, that is written only once the gate is open."""

    def __init__(self, values: Mapping[str, Any] = _CONFIG) -> None:
        super().__init__(values)
        self.gate = threading.Event()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        assert self.gate.wait(PATIENCE)
        return super().items()


def _block(run: Path) -> Path:
    """Make every write fail: a file where the folder of checkpoints should be."""
    path = run / "checkpoints"
    path.write_text("in the way")
    return path


def test_what_is_written_is_what_the_tensors_were_at_the_start(tmp_path: Path) -> None:
    tensors, velocity = random_tensors(1), random_tensors(2)
    with _writer(tmp_path) as writer:
        for number in (1, 2):
            writer.start(_state(number), Models(tensors, velocity), [])
            writer.finish()
            # From here on they may change.
            for tensor in (*tensors.values(), *velocity.values()):
                tensor.add_(1)
    for number in (1, 2):
        found = load_checkpoint(checkpoint_folder(tmp_path, number), MICRO)
        added = number - 1
        assert found.state == _state(number)
        assert found.config == _CONFIG
        assert found.models.velocity is not None
        assert same_bytes(found.models.supernet, {name: tensor + added for name, tensor in random_tensors(1).items()})
        assert same_bytes(found.models.velocity, {name: tensor + added for name, tensor in random_tensors(2).items()})


def test_branches_that_go_in_the_meantime_are_written_all_the_same(tmp_path: Path) -> None:
    branch = Branch(largest(), random_tensors(3))
    supernet = _Gated(random_tensors())
    models = Models(supernet, None, {"one": branch})
    with _writer(tmp_path) as writer:
        writer.start(_state(1), models, [])
        models.branches.clear()
        supernet.gate.set()
    found = load_checkpoint(checkpoint_folder(tmp_path, 1), MICRO)
    assert same_bytes(found.models.branches["one"].tensors, branch.tensors)


def test_without_velocity_none_is_written(tmp_path: Path) -> None:
    with _writer(tmp_path) as writer:
        writer.start(_state(1), Models(random_tensors()), [])
    assert load_checkpoint(newest_checkpoint(tmp_path), MICRO).models.velocity is None


def test_finishing_what_was_not_started_or_is_finished_does_nothing(tmp_path: Path) -> None:
    tracker = Recorder()
    with _writer(tmp_path, tracker) as writer:
        writer.finish()
        assert not (tmp_path / "checkpoints").exists()
        writer.start(_state(1), Models(random_tensors()), ["best"])
        for _ in range(3):
            writer.finish()
    assert tracker.checkpoints == [("round-000001", ["best"])]


def test_the_tracker_is_told_of_named_checkpoints_once_they_can_be_read(tmp_path: Path) -> None:
    tracker = _Looking()
    with _writer(tmp_path, tracker) as writer:
        for number, aliases in ((1, ["best"]), (2, []), (3, ["best", "final"])):
            told = list(tracker.rounds)
            writer.start(_state(number), Models(random_tensors()), aliases)
            assert tracker.rounds == told
            if number != 3:
                writer.finish()
    assert tracker.checkpoints == [("round-000001", ["best"]), ("round-000003", ["best", "final"])]
    assert tracker.rounds == [1, 3]
    assert checkpoint_names(tmp_path) == ["round-000001", "round-000002", "round-000003"]


def test_starting_does_not_wait_and_finishing_does(tmp_path: Path) -> None:
    config, folder = _Gated(), checkpoint_folder(tmp_path, 1)
    with CheckpointWriter(tmp_path, config, 2, Recorder()) as writer:
        writer.start(_state(1), Models(random_tensors()), [])
        # Nothing can be written before the gate is open, and yet we are here.
        assert not folder.exists()
        config.gate.set()
        writer.finish()
        assert folder.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_leaving_the_context_waits_for_what_is_being_written(tmp_path: Path, fails: bool) -> None:
    config = _Gated()
    # Opens the gate a while after the context was left.
    opener = threading.Timer(0.2, config.gate.set)
    try:
        with CheckpointWriter(tmp_path, config, 2, Recorder()) as writer:
            writer.start(_state(1), Models(random_tensors()), [])
            opener.start()
            if fails:
                raise KeyError("something else")
    except KeyError:
        assert fails
    assert load_checkpoint(newest_checkpoint(tmp_path), MICRO).state == _state(1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]
    opener.join()


def test_an_error_of_writing_is_raised_by_finish_once(tmp_path: Path) -> None:
    tracker = Recorder()
    with _writer(tmp_path, tracker) as writer:
        obstacle = _block(tmp_path)
        writer.start(_state(1), Models(random_tensors()), ["best"])
        with pytest.raises(CheckpointError, match=f"cannot write checkpoint {checkpoint_folder(tmp_path, 1)}"):
            writer.finish()
        assert tracker.checkpoints == []
        writer.finish()
        obstacle.unlink()
        writer.start(_state(2), Models(random_tensors()), ["final"])
    assert tracker.checkpoints == [("round-000002", ["final"])]
    assert checkpoint_names(tmp_path) == ["round-000002"]


def test_an_error_of_the_last_write_is_raised_when_the_context_is_left(tmp_path: Path) -> None:
    _block(tmp_path)
    with pytest.raises(CheckpointError, match="cannot write checkpoint"), _writer(tmp_path) as writer:
        writer.start(_state(1), Models(random_tensors()), [])


@pytest.mark.parametrize("blocked", [False, True])
def test_an_error_inside_the_context_is_the_one_that_is_seen(tmp_path: Path, blocked: bool) -> None:
    if blocked:
        _block(tmp_path)
    tracker = Recorder()

    def train() -> None:
        with _writer(tmp_path, tracker) as writer:
            writer.start(_state(1), Models(random_tensors()), ["best"])
            raise LookupError("the cause")

    with pytest.raises(LookupError, match="the cause"):
        train()
    # The run has ended: nobody is told.
    assert tracker.checkpoints == []


def test_channels_last_tensors_come_back_equal_and_contiguous(tmp_path: Path) -> None:
    tensors: Tensors = {
        name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in random_tensors().items()
    }
    assert not all(tensor.is_contiguous() for tensor in tensors.values())
    with _writer(tmp_path) as writer:
        writer.start(_state(1), Models(tensors, tensors), [])
    found = load_checkpoint(newest_checkpoint(tmp_path), MICRO)
    assert found.models.velocity is not None
    for own in (found.models.supernet, found.models.velocity):
        assert same_bytes(own, tensors)
        assert all(tensor.is_contiguous() for tensor in own.values())


@pytest.mark.parametrize(("keep", "kept"), [(1, [2, 6]), (2, [2, 5, 6]), (50, [1, 2, 3, 4, 5, 6])])
def test_the_newest_and_the_best_are_kept(tmp_path: Path, keep: int, kept: list[int]) -> None:
    with _writer(tmp_path, keep=keep) as writer:
        for number in range(1, 7):
            writer.start(_state(number, Best(min(number, 2), 0.5)), Models(random_tensors()), [])
            writer.finish()
    assert checkpoint_names(tmp_path) == [f"round-{number:06d}" for number in kept]
