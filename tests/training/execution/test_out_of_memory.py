"""Memory that runs out: told apart from other errors, and how a run ends that it happens to."""

import dataclasses
import threading
import time
from collections.abc import ItemsView, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from helpers.runs.federation import MICRO, micro_recipe, random_images
from helpers.runs.simulation import (
    entry_of,
    fresh_start,
    largest,
    micro_task,
    own_memory,
    recorder,
    same_bytes,
    short_config,
    simulated_run,
    smallest,
    train_run,
)

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.training.clients.cuda_graphs import RecordingError
from fedpareto.training.clients.trainer import LocalTrainer
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.engines.protocol import Engine
from fedpareto.training.execution.out_of_memory import OutOfMemoryError, out_of_memory
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import Failure, Task, Update
from fedpareto.training.rounds.loop import train
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.checkpoint import checkpoint_folder, load_checkpoint, newest_checkpoint

_CPU = torch.device("cpu")


def _allocate_an_exbibyte() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def _raise(error: BaseException) -> None:
    raise error


def test_an_allocation_the_cpu_refuses_names_the_network_the_batch_and_the_device() -> None:
    with pytest.raises(OutOfMemoryError) as caught, out_of_memory(smallest(), 48, _CPU):
        _allocate_an_exbibyte()
    error = caught.value
    assert (error.architecture, error.batch_size, error.device) == (smallest(), 48, _CPU)
    assert str(error) == "out of memory on cpu at batch 48"
    assert isinstance(error.__cause__, RuntimeError)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
     RuntimeError("could not create a memory object"), RuntimeError("could not allocate 5 bytes"),
     RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"),
     RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")],
    ids=["python", "cuda", "onednn-object", "onednn", "cuda-driver", "cublas"],
)  # fmt: skip
def test_every_other_sign_of_a_full_memory_does_too(error: Exception) -> None:
    device = torch.device("cuda:1")
    with pytest.raises(OutOfMemoryError) as caught, out_of_memory(largest(), 8, device):
        _raise(error)
    assert caught.value.__cause__ is error
    assert (caught.value.architecture, caught.value.batch_size, caught.value.device) == (largest(), 8, device)


def test_memory_that_ran_out_while_a_graph_was_captured_is_told_by_what_came_before() -> None:
    def capture() -> None:
        try:
            _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
        finally:
            # As torch does, whose end of a capture fails for the same reason.
            _raise(RuntimeError("operation failed due to a previous error during capture"))

    with pytest.raises(OutOfMemoryError) as caught, out_of_memory(largest(), 8, _CPU):
        capture()
    assert str(caught.value) == "out of memory on cpu at batch 8"


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory"), KeyboardInterrupt(),
     RuntimeError("Storage size calculation overflowed")],
    ids=["runtime", "value", "interrupt", "overflow"],
)  # fmt: skip
def test_other_errors_pass_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, out_of_memory(largest(), 8, _CPU):
        _raise(error)
    assert caught.value is error


def test_where_nothing_fails_nothing_happens() -> None:
    with out_of_memory(largest(), 8, _CPU):
        torch.empty(8)


class _Bursting:
    """Trains as another engine does until memory runs out in one round, after ``answers`` answers."""

    def __init__(self, inner: Engine, round_number: int, answers: int) -> None:
        self._inner, self._round, self._answers = inner, round_number, answers
        self.burst: Update | None = None

    def available(self) -> Sequence[int]:
        return self._inner.available()

    def examples(self, client: int) -> int:
        return self._inner.examples(client)

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        for answered, answer in enumerate(self._inner.run(tasks)):
            assert isinstance(answer, Update)
            if answer.task.round == self._round and answered == self._answers:
                self.burst = own_memory(answer)
                with out_of_memory(answer.task.architecture, 8, _CPU):
                    _allocate_an_exbibyte()
            yield answer


def _bursting_run(folder: Path, config: RunConfig, round_number: int, answers: int = 1) -> tuple[Run, _Bursting]:
    run = simulated_run(folder, config)
    engine = _Bursting(run.engine, round_number, answers)
    return dataclasses.replace(run, engine=engine), engine


def _seldom(**changes: object) -> RunConfig:
    """Return a configuration that writes no checkpoint by itself but the last."""
    evaluation = EvaluationConfig(every=50, probes=2, calibration_images=16, batch_size=16)
    return short_config(checkpoint=CheckpointConfig(every=50), evaluation=evaluation, **changes)


@pytest.mark.parametrize(("failing", "answers", "momentum"), [(1, 0, 0.0), (1, 2, 0.5), (3, 0, 0.5), (3, 2, 0.0)])
def test_a_run_out_of_memory_ends_with_its_last_whole_round_kept_and_says_how_to_go_on(
    tmp_path: Path, failing: int, answers: int, momentum: float
) -> None:
    config = _seldom(server=ServerConfig(momentum=momentum))
    run, engine = _bursting_run(tmp_path, config, failing, answers)
    start = fresh_start(run)
    with pytest.raises(UserError) as caught:
        train(run, *start)
    assert engine.burst is not None
    entry, folder = entry_of(engine.burst), tmp_path / "checkpoints" / f"round-{failing - 1:06d}"
    assert str(caught.value) == (
        f"out of memory on cpu: training the network of {format_quantity(entry.macs)} MACs and "
        f"{format_quantity(entry.params)} parameters at batch 8; round {failing - 1} is kept "
        f"in {folder}; go on with: train-supernet --resume {tmp_path} --client.batch-size 4"
    )
    assert newest_checkpoint(tmp_path) == folder
    found = load_checkpoint(folder, MICRO)
    assert found.state.round == failing - 1
    assert [record.round for record in recorder(run).records] == list(range(1, failing))

    # Neither the supernet nor the momentum has seen anything of the round that failed.
    stops = iter([False] * (failing - 2) + [True])
    whole = simulated_run(tmp_path / "whole", config, should_stop=lambda: next(stops))
    expected = fresh_start(whole)
    if failing > 1:
        train(whole, *expected)
    assert same_bytes(found.models.supernet, expected.models.supernet)
    assert same_bytes(found.models.velocity or {}, expected.models.velocity or {})
    assert (found.models.velocity is None) == (momentum == 0)


def test_a_run_that_was_out_of_memory_goes_on_to_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    config = _seldom()
    _, expected = train_run(simulated_run(tmp_path / "whole", config))
    run, _ = _bursting_run(tmp_path / "parts", config, 2)
    with pytest.raises(UserError, match="out of memory"):
        train_run(run)
    found = load_checkpoint(newest_checkpoint(tmp_path / "parts"), MICRO)
    train(simulated_run(tmp_path / "parts", config), found.state, found.models)
    assert same_bytes(found.models.supernet, expected)


def test_a_client_out_of_memory_names_its_network_and_its_batch() -> None:
    trainer = LocalTrainer(micro_recipe(batch_size=12), Profile(), _CPU)

    def full() -> bool:
        _allocate_an_exbibyte()
        return False

    with pytest.raises(OutOfMemoryError) as caught:
        trainer.train(micro_task(smallest()), random_images(16), full)
    assert (caught.value.architecture, caught.value.batch_size, caught.value.device) == (smallest(), 12, _CPU)


class _Contended(dict[str, object]):
    """A configuration whose writing, on the checkpoints' own thread, waits a while for another writer to begin.

    The other, the thread this was made on, then waits a while until the first has ended.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(seed=0)
        self._folder, self._main, self._begun = folder, threading.current_thread(), threading.Event()

    def items(self) -> ItemsView[str, object]:  # type: ignore[override]
        if threading.current_thread() is not self._main:
            self._begun.wait(1.5)
            return super().items()
        self._begun.set()
        for _ in range(150):
            if self._folder.exists():
                break
            time.sleep(0.01)
        return super().items()


class _Full:
    """Trains as another engine does, and has no memory at all from the second round on."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    def available(self) -> Sequence[int]:
        return self._inner.available()

    def examples(self, client: int) -> int:
        return self._inner.examples(client)

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        first, *rest = tasks
        if first.round > 1:
            raise OutOfMemoryError(first.architecture, 8, _CPU)
        yield from self._inner.run([first, *rest])


@pytest.mark.slow
def test_a_run_out_of_memory_while_its_last_checkpoint_is_written_keeps_that_checkpoint(tmp_path: Path) -> None:
    folder = checkpoint_folder(tmp_path, 1)
    run = simulated_run(tmp_path, config_mapping=_Contended(folder))
    run = dataclasses.replace(run, engine=_Full(run.engine))
    start = fresh_start(run)
    with pytest.raises(UserError, match="out of memory on cpu") as caught:
        train(run, *start)
    assert f"round 1 is kept in {folder}" in str(caught.value)
    assert same_bytes(load_checkpoint(folder, MICRO).models.supernet, start.models.supernet)


class _Unrecordable(_Full):
    """Trains as another engine does, and can record no step from the second round on."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        first, *rest = tasks
        if first.round > 1:
            raise RecordingError("a step cannot be recorded as a graph (no)")
        yield from self._inner.run([first, *rest])


def test_a_run_whose_steps_cannot_be_recorded_any_more_keeps_its_last_round(tmp_path: Path) -> None:
    run = simulated_run(tmp_path, _seldom())
    run = dataclasses.replace(run, engine=_Unrecordable(run.engine))
    with pytest.raises(UserError) as caught:
        train_run(run)
    assert str(caught.value) == (
        f"a step cannot be recorded as a graph (no); round 1 is kept in {checkpoint_folder(tmp_path, 1)}; "
        f"go on with: train-supernet --resume {tmp_path}"
    )
    assert newest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 1)
