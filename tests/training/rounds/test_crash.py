"""Runs that are really killed, interrupted and starved of disk, in processes of their own."""

import dataclasses
import os
import resource
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.commands import called
from helpers.processes import PATIENCE, finish, start, wait_until
from helpers.runs.federation import arguments_of, finished_run, micro_config, read_metrics

from fedpareto.training.cli import main
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.evaluation import CheckpointConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.execution.profile import Profile

ROUNDS = 6


def _config(folder: Path, **changes: object) -> RunConfig:
    config = micro_config(folder, rounds=ROUNDS, server=ServerConfig(momentum=0.5))
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def _finished(folder: Path, **changes: object) -> Path:
    """Train a run to its end in this process; return its folder."""
    return finished_run(folder, **{"rounds": ROUNDS, "server": ServerConfig(momentum=0.5), **changes})


def _supernet(run: Path, round_number: int = ROUNDS) -> bytes:
    return (run / f"checkpoints/round-{round_number:06d}/supernet.safetensors").read_bytes()


def _rounds(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, in this process."""
    return _finished(tmp_path_factory.mktemp("whole"))


def test_a_run_killed_in_mid_round_and_resumed_ends_with_the_same_bytes(tmp_path: Path, uninterrupted: Path) -> None:
    config = _config(tmp_path, checkpoint=CheckpointConfig(every=2, keep=2))
    run = Path(str(config.output))
    process = start("train-supernet", *arguments_of(config), cwd=tmp_path)
    wait_until(lambda: _rounds(run) >= 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (run / f"checkpoints/round-{ROUNDS:06d}").exists()

    resumed = called(main, "--resume", run)
    assert resumed.code == 0, resumed.err
    assert "resuming after round" in resumed.err
    assert _supernet(run) == _supernet(uninterrupted)
    kept, whole = read_metrics(run), read_metrics(uninterrupted)
    assert [record["round"] for record in kept] == list(range(1, ROUNDS + 1))
    for name in ("train_loss", "clients", "probes", "trained", "bytes_up"):
        assert [record[name] for record in kept] == [record[name] for record in whole]


@pytest.mark.slow
def test_a_finished_run_that_is_killed_while_it_is_given_more_ends_with_the_bytes_of_one_that_was_not(
    tmp_path: Path, uninterrupted: Path
) -> None:
    more, longer = ROUNDS + 4, Path(shutil.copytree(uninterrupted, tmp_path / "longer"))
    done = called(main, "--resume", longer, "--rounds", more)
    assert done.code == 0, done.err
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    process = start("train-supernet", "--resume", run, "--rounds", more, cwd=tmp_path)
    wait_until(lambda: _rounds(run) > ROUNDS, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # It remembers how long it is to be.
    resumed = called(main, "--resume", run)
    assert resumed.code == 0, resumed.err
    assert _supernet(run, more) == _supernet(longer, more) != _supernet(uninterrupted)
    lines = (uninterrupted / "metrics.jsonl").read_bytes()
    for extended in (run, longer):
        assert (extended / "metrics.jsonl").read_bytes().startswith(lines)
        assert len(read_metrics(extended)) == more


@pytest.mark.slow
def test_the_same_seed_twice_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, uninterrupted: Path) -> None:
    config = _config(tmp_path)
    # In another process, where nothing was drawn before.
    assert finish("train-supernet", *arguments_of(config), cwd=tmp_path).returncode == 0
    assert _supernet(Path(str(config.output))) == _supernet(uninterrupted)
    (tmp_path / "other").mkdir()
    other = _finished(tmp_path / "other", seed=1)
    assert _supernet(other) != _supernet(uninterrupted)


@pytest.mark.slow
def test_an_interrupt_ends_at_the_rounds_edge_and_prints_the_resume_command(
    tmp_path: Path, uninterrupted: Path
) -> None:
    config = _config(tmp_path, rounds=ROUNDS, checkpoint=CheckpointConfig(every=ROUNDS, keep=2))
    run = Path(str(config.output))
    process = start("train-supernet", *arguments_of(config), cwd=tmp_path)
    wait_until(lambda: _rounds(run) >= 2, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert f"next: train-supernet --resume {run}" in err
    stopped = _rounds(run)
    assert 2 <= stopped < ROUNDS
    assert (run / f"checkpoints/round-{stopped:06d}/supernet.safetensors").exists()
    resumed = called(main, "--resume", run)
    assert resumed.code == 0, resumed.err
    assert _supernet(run) == _supernet(uninterrupted)


#: Two rounds that take seconds.
_LONG = {
    "rounds": 2,
    "client": ClientConfig(epochs=15, batch_size=16, lr=0.05),
    "checkpoint": CheckpointConfig(every=2, keep=2),
}


@pytest.fixture(scope="module")
def long_uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _finished(tmp_path_factory.mktemp("long"), **_LONG)


@pytest.mark.slow
@pytest.mark.parametrize(("numbers", "code"), [([signal.SIGTERM], 143), ([signal.SIGINT, signal.SIGINT], 130)])
def test_a_round_abandoned_in_its_middle_leaves_the_one_before_it_and_is_trained_again(
    tmp_path: Path, long_uninterrupted: Path, numbers: Sequence[signal.Signals], code: int
) -> None:
    config = _config(tmp_path, **_LONG)
    run = Path(str(config.output))
    process = start("train-supernet", *arguments_of(config), cwd=tmp_path)
    wait_until(lambda: _rounds(run) >= 1, process)
    for number in numbers:
        process.send_signal(number)
        # Signals of one kind that come at once are one.
        time.sleep(0.2)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    # The first Ctrl-C may come between two rounds: then there is none to finish.
    assert "stopping at once" in err or "stopped after a round" in err
    assert f"round 1 of 2 is kept in {run}/checkpoints/round-000001\nnext: train-supernet --resume {run}\n" in err
    assert "Traceback" not in err
    assert _rounds(run) == 1
    resumed = called(main, "--resume", run)
    assert resumed.code == 0, resumed.err
    assert _supernet(run, 2) == _supernet(long_uninterrupted, 2)
    assert [record["probes"] for record in read_metrics(run)] == [
        record["probes"] for record in read_metrics(long_uninterrupted)
    ]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_round_that_would_last_for_hours_is_abandoned(tmp_path: Path, workers: int) -> None:
    config = _config(
        tmp_path,
        client=ClientConfig(epochs=10_000_000, batch_size=16, lr=0.05),
        execution=Profile(workers=workers).chosen(),
    )
    run = Path(str(config.output))
    process = start("train-supernet", *arguments_of(config), cwd=tmp_path)
    wait_until((run / ".lock").exists, process)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, err
    assert f"round 0 of {ROUNDS} is kept in {run}/checkpoints/round-000000" in err
    assert os.listdir(run / "checkpoints") == ["round-000000"]


@pytest.mark.slow
def test_a_killed_run_is_tidied_up_and_its_metrics_are_mended_when_it_is_resumed(tmp_path: Path) -> None:
    run = _finished(tmp_path, rounds=3)
    checkpoints = run / "checkpoints"
    # As if it had been killed after the second round, in the middle of all it writes.
    (checkpoints / "round-000003").rename(checkpoints / ".round-000003.tmp")
    (checkpoints / "round-x").mkdir()
    (run / ".fedpareto-abcdefgh.yaml").write_text("half")
    metrics = run / "metrics.jsonl"
    lines = metrics.read_bytes().split(b"\n")
    metrics.write_bytes(b"\n".join([lines[0][:40], *lines[1:]]))
    done = called(main, "--resume", run, "--checkpoint.keep", 1)
    assert done.code == 0, done.err
    assert f"{metrics} was damaged (kept as metrics.jsonl.damaged); round 1 has no record any more" in done.err
    assert [record["round"] for record in read_metrics(run)] == [1, 2, 3]
    assert {"round-x", "round-000003"} <= set(os.listdir(checkpoints)) <= {"round-x", "round-000002", "round-000003"}
    assert not [name for name in os.listdir(run) if name.startswith(".fedpareto-")]
    # A finished run is mended as well.
    metrics.unlink()
    done = called(main, "--resume", run)
    assert done.code == 0, done.err
    assert f"{metrics} was missing; 3 of 3 rounds have no record any more" in done.err
    assert read_metrics(run) == [{"round": number, "lost": True} for number in (1, 2, 3)]


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_last_good_one(tmp_path: Path) -> None:
    run = _finished(tmp_path, rounds=2)
    good = {path: path.read_bytes() for path in run.glob("checkpoints/round-000000/*")}
    assert not good  # pruned: two are kept
    folder = run / "checkpoints/round-000002"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    before = {path: path.read_bytes() for path in run.glob("checkpoints/*/*")}
    size = (run / "checkpoints/round-000001/supernet.safetensors").stat().st_size

    def limit_file_size() -> None:
        # The kernel refuses longer files with an error, as a full disk does; Python ignores the signal.
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    failed = finish("train-supernet", "--resume", run, cwd=tmp_path, before=limit_file_size)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("train-supernet: error: cannot write checkpoint")
    assert f"the last good checkpoint is {run}/checkpoints/round-000001" in last
    assert {path: path.read_bytes() for path in run.glob("checkpoints/*/*")} == before
    assert not [name for name in os.listdir(run / "checkpoints") if name.endswith(".tmp")]
    resumed = called(main, "--resume", run)
    assert resumed.code == 0, resumed.err


def test_two_processes_never_train_one_run(tmp_path: Path) -> None:
    config = _config(tmp_path, rounds=200)
    run = Path(str(config.output))
    first = start("train-supernet", *arguments_of(config), cwd=tmp_path)
    try:
        wait_until(lambda: _rounds(run) >= 1, first)
        second = called(main, "--resume", run)
        assert second.code == 2
        assert "another process is training" in second.err
    finally:
        first.kill()
        first.communicate()
