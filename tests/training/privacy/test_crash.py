"""Private runs that are killed between a release's line in the ledger and the round's checkpoint."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import called
from helpers.runs.federation import finished_run, read_metrics

from fedpareto.training.aggregation.round_results import RoundResults
from fedpareto.training.cli import main
from fedpareto.training.config.evaluation import EvaluationConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.messages import Failure, Update
from fedpareto.training.privacy.accountant import epsilon, exposure_after
from fedpareto.training.runs.checkpoint import newest_checkpoint

ROUNDS = 4

#: The command, in a process that kills itself once the line of round 3 is written.
_KILLED = """
import os, signal, sys
from fedpareto.training.privacy.ledger import Ledger
write = Ledger.write
def killed(self, release):
    write(self, release)
    if release.round == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Ledger.write = killed
from fedpareto.training.cli import main
main(sys.argv[1:])
"""


def _supernet(run: Path) -> bytes:
    return (run / f"checkpoints/round-{ROUNDS:06d}/supernet.safetensors").read_bytes()


def _lines(run: Path) -> list[Any]:
    return [json.loads(line) for line in (run / "releases.jsonl").read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run to its end, and the same run, with the same key, killed in its third round."""
    folder = tmp_path_factory.mktemp("private")
    begun = finished_run(
        folder,
        rounds=2,
        # One client is in all rounds.
        seed=1,
        privacy=PrivacyConfig(clip=0.5, noise=0.7),
        evaluation=EvaluationConfig(every=9, probes=2, calibration_images=64, batch_size=64),
    )
    dead, whole = (Path(shutil.copytree(begun, folder / name)) for name in ("dead", "whole"))
    done = called(main, "--resume", whole, "--rounds", ROUNDS)
    assert done.code == 0, done.err
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED, "--resume", dead, "--rounds", str(ROUNDS)], cwd=folder, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert newest_checkpoint(dead).name == "round-000002"
    assert [line["round"] for line in _lines(dead)] == [1, 2, 3]
    return whole, dead


@pytest.mark.slow
def test_resumed_with_the_same_answers_it_has_the_bytes_and_the_account_of_a_run_never_killed(
    tmp_path: Path, killed: tuple[Path, Path]
) -> None:
    whole, dead = killed
    run = Path(shutil.copytree(dead, tmp_path / "run"))
    done = called(main, "--resume", run)
    assert done.code == 0, done.err
    assert _supernet(run) == _supernet(whole)
    assert (run / "releases.jsonl").read_bytes() == (whole / "releases.jsonl").read_bytes()
    assert read_metrics(run)[-1]["epsilon"] == read_metrics(whole)[-1]["epsilon"]


def test_resumed_with_other_answers_both_releases_are_counted(
    tmp_path: Path, killed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, dead = killed
    run = Path(shutil.copytree(dead, tmp_path / "run"))
    take, failed = RoundResults.take, set[int]()

    def otherwise(self: RoundResults, answer: Update | Failure) -> None:
        number = self.plan.number
        if number == 3 and number not in failed:
            failed.add(number)
            answer = Failure(answer.task, "error", "its battery is empty")
        take(self, answer)

    monkeypatch.setattr(RoundResults, "take", otherwise)
    done = called(main, "--resume", run)
    assert done.code == 0, done.err
    lines = _lines(run)
    assert [line["round"] for line in lines] == [1, 2, 3, 3, 4]
    assert lines[2]["digest"] != lines[3]["digest"]
    assert _supernet(run) != _supernet(whole)
    exposure: tuple[float, ...] = ()
    for line in lines:
        exposure = exposure_after(exposure, {int(key): weight for key, weight in line["weights"].items()}, 6)
    spent = read_metrics(run)[-1]["epsilon"]
    assert spent == epsilon(max(exposure), 0.7, 1e-5)
    state = json.loads((newest_checkpoint(run) / "state.json").read_text())["state"]
    assert state["exposure"] == list(exposure)
    assert (max(exposure), spent > read_metrics(whole)[-1]["epsilon"]) == (5.0, True)


def test_what_was_released_before_the_kill_counts_though_it_is_never_repeated(
    tmp_path: Path, killed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed to be stopped by its budget: the lost round is in the account all the same."""
    whole, dead = killed
    run = Path(shutil.copytree(dead, tmp_path / "run"))
    second, third = (read_metrics(whole)[number]["epsilon"] for number in (1, 2))
    assert second < third
    monkeypatch.setattr("fedpareto.training.privacy.ledger.Ledger.may_repeat", lambda *_: False)
    done = called(main, "--resume", run, "--privacy.epsilon", str(third))
    assert done.code == 0, done.err
    assert f"(ε, δ) = ({third:.2f}, 1e-05)" in " ".join(done.err.split())
    assert newest_checkpoint(run).name == "round-000002"
