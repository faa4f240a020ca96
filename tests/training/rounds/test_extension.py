"""Runs that are given more rounds or more compute: when, what is said of it, and that earlier rounds stay."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Outcome, check_refused, run_main
from helpers.runs.federation import arguments_of, finished_run, micro_config, read_metrics

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.cli import main
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.evaluation import CheckpointConfig
from fedpareto.training.config.methods import DecNasConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.rounds.extension import before_extension
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.folder import METRICS, read_run_config
from fedpareto.training.runs.state import Counts, Origin, RunState
from fedpareto.training.setup import assemble, resumed_run
from fedpareto.training.trackers.metrics_file import MetricsFile

_DONE = RunState(8, Counts((), ()), (), compute=800)

#: Of the bytes of a run, those of all that was trained and kept.
_KEPT = ("supernet.safetensors", "server.safetensors")

_RUN = Path("run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two rounds that keeps its checkpoints."""
    return finished_run(
        tmp_path_factory.mktemp("finished"),
        rounds=2,
        server=ServerConfig(momentum=0.5),
        checkpoint=CheckpointConfig(every=1, keep=9),
    )


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def _files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def _resume(capsys: pytest.CaptureFixture[str], run: Path, *arguments: object) -> Outcome:
    outcome = run_main(main, capsys, "--resume", run, *arguments)
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.mark.parametrize("arguments", [("--rounds", 4), pytest.param(("--compute", "250M"), marks=pytest.mark.slow)])
def test_a_finished_run_goes_on_and_its_earlier_rounds_keep_their_bytes(
    capsys: pytest.CaptureFixture[str], run: Path, arguments: tuple[object, ...]
) -> None:
    before = _files(run)
    outcome = _resume(capsys, run, *arguments)
    length = f"{arguments[1]} {'rounds' if arguments[0] == '--rounds' else 'MACs'}"
    assert f"training ends after {length}, not 2 rounds: from round 3 on its schedules run over" in outcome.err
    assert "the next learning rate is 0.0" in outcome.err
    assert "the run ends with other bytes" not in outcome.err
    after = _files(run)
    assert after[METRICS].startswith(before[METRICS])
    assert len(read_metrics(run)) > 2
    kept = {name for name in before if name.startswith("checkpoints/")}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    # It is an ordinary run then: finished, and to be extended again.
    assert f"is finished after {counted(len(read_metrics(run)), 'round')}" in _resume(capsys, run).err
    again = _resume(capsys, run, "--compute", "null", "--rounds", 9)
    assert len(read_metrics(run)) == 9
    assert "training ends after 9 rounds, not" in again.err


def _train_on(run: Path, config: RunConfig, should_stop: Callable[[], bool]) -> None:
    """Go on with a run as the command does, until it is finished or asked to stop."""
    prepared = resumed_run(run, config, SILENT)
    start = prepared.checkpoint
    tracker = MetricsFile(run / METRICS, start.state.round)
    train(
        assemble(prepared, tracker, should_stop),
        start.state,
        start.models,
    )


@pytest.mark.parametrize("changes", [{"rounds": 6}, pytest.param({"compute": "500M"}, marks=pytest.mark.slow)])
def test_an_extended_run_that_was_stopped_ends_with_the_bytes_of_one_that_was_not(
    run: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    config = read_run_config(run)
    _train_on(run, dataclasses.replace(config, **changes), lambda: False)
    longer = dataclasses.replace(read_run_config(other), **changes)
    _train_on(other, longer, lambda: True)
    assert len(read_metrics(other)) == 3
    _train_on(other, longer, lambda: True)
    _train_on(other, longer, lambda: False)
    one, two = _files(run), _files(other)
    tensors = [name for name in one if name.endswith(_KEPT)]
    assert len(tensors) > 6
    assert {name: one[name] for name in tensors} == {name: two[name] for name in tensors}
    told = ("round", "train_loss", "lr", "beta", "clients", "probes", "trained", "compute", "done")
    pairs = zip(read_metrics(run), read_metrics(other), strict=True)
    assert all(first[name] == second[name] for first, second in pairs for name in told)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--rounds", 1), "rounds is 1, but {run} has done 2; name more, or leave rounds out"),
        (("--compute", "1K"), "compute is 1K, but {run} has spent "),
        (("--rounds", 4, "--client.lr", 1), "client.lr is 1.0, but {run} was trained with 0.05"),
    ],
)
def test_less_than_is_done_or_another_change_besides_is_refused(
    capsys: pytest.CaptureFixture[str], run: Path, arguments: tuple[object, ...], expected: str
) -> None:
    before = _files(run)
    line = check_refused(run_main(main, capsys, "--resume", run, *arguments), "train-supernet")
    assert expected.format(run=run) in line
    assert _files(run) == before


def _unchanged(config: RunConfig) -> dict[str, Any]:
    return {"rounds": config.rounds, "compute": config.compute}


@pytest.mark.parametrize(
    ("trained", "asked", "origin"),
    [
        (RunConfig(rounds=8), RunConfig(rounds=9), Origin()),
        (RunConfig(rounds=20), RunConfig(rounds=9), Origin()),
        (RunConfig(rounds=20), RunConfig(rounds=6), Origin(3, 300)),
        (RunConfig(rounds=20), RunConfig(rounds=1), None),
        (RunConfig(rounds=8), RunConfig(rounds=8, compute="900"), Origin()),
        (RunConfig(rounds=8, compute="800"), RunConfig(rounds=8, compute="1K"), Origin()),
        (RunConfig(rounds=8, compute="800"), RunConfig(rounds=9), Origin()),
        (RunConfig(rounds=8, compute="800"), RunConfig(rounds=8, compute="900"), None),
    ],
)
def test_a_run_may_be_given_another_length_that_leaves_something_to_train(
    trained: RunConfig, asked: RunConfig, origin: Origin | None
) -> None:
    state = dataclasses.replace(_DONE, origin=origin)
    assert before_extension(_RUN, asked, state, _unchanged(trained)) == trained


@pytest.mark.parametrize(
    ("trained", "asked"),
    [
        (RunConfig(rounds=8), RunConfig(rounds=8)),
        (RunConfig(rounds=8, compute="1000"), RunConfig(rounds=8, compute="1K")),
        (RunConfig(rounds=8, compute="1e3"), RunConfig(rounds=8, compute="1000")),
    ],
)
def test_the_same_length_in_other_words_is_no_change(trained: RunConfig, asked: RunConfig) -> None:
    assert before_extension(_RUN, asked, _DONE, _unchanged(trained)) is None


@pytest.mark.parametrize(
    ("trained", "asked", "origin", "expected"),
    [
        (RunConfig(rounds=20), RunConfig(rounds=8), Origin(), "rounds is 8, but run has done 8; name more"),
        (RunConfig(rounds=20), RunConfig(rounds=5), Origin(3), "rounds is 5, but run has done 5 after its search;"),
        (RunConfig(), RunConfig(compute="800"), Origin(), "compute is 800, but run has spent 800 MACs; name more"),
        (RunConfig(compute="9K"), RunConfig(compute="1"), None, "compute is 1, but run has spent 800 MACs; name more"),
        (
            RunConfig(rounds=20, compute="9K"),
            RunConfig(rounds=30, compute="9K"),
            Origin(),
            "rounds is 30, but run ends by compute (9K MACs); give it more --compute, or add --compute null",
        ),
        (
            RunConfig(rounds=8),
            RunConfig(rounds=30, compute="9K"),
            Origin(),
            "rounds is 30, but run ends by compute (9K",
        ),
        (RunConfig(rounds=20, compute="9K"), RunConfig(rounds=8), Origin(), "rounds is 8, but run has done 8;"),
    ],
)
def test_a_length_that_leaves_nothing_to_train_or_ends_nothing_is_refused(
    trained: RunConfig, asked: RunConfig, origin: Origin | None, expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        before_extension(_RUN, asked, dataclasses.replace(_DONE, origin=origin), _unchanged(trained))
    assert str(caught.value).startswith(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"method": "deepfednas"},
            "the next learning rate is 0.025, not 0, the largest network's weight 0.508, not 0.333",
        ),
        (
            {"method": "deepfednas", "client": ClientConfig(1, 16, 0.05, "constant")},
            "the learning rate stays 0.05, the largest",
        ),
        (
            {"method": "superfednas", "client": ClientConfig(1, 16, 0.05, "step")},
            "the next learning rate is 0.005, not 0.0005, the largest",
        ),
        ({}, "the next learning rate is 0.025, not 0, the power of the draws 1.5, not -1\n"),
        ({"method": "fedavg"}, "the next learning rate is 0.025, not 0\n"),
    ],
)
def test_what_another_length_does_to_the_schedules_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    run = finished_run(tmp_path, rounds=1, **changes)
    outcome = _resume(capsys, run, "--rounds", 2)
    assert expected in outcome.err
    (_, second) = read_metrics(run)
    assert f"{second['lr']:.3g}" in expected
    told = "largest network's weight" if second["beta"] is None else f"weight {second['beta']:.3g}, not 0.333"
    assert (told in outcome.err) == (second["beta"] is not None)


@pytest.mark.slow
def test_a_search_that_compute_ended_goes_on_and_so_does_the_training_after_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = DecNasConfig(budget="110K", step=0.15, drop_after=1, least_rounds=1, most_rounds=2)
    config = micro_config(tmp_path, rounds=RunConfig.rounds, compute="1000", method="decnas", decnas=settings)
    assert run_main(main, capsys, *arguments_of(config)).code == 0
    run = tmp_path / "run"
    searched = (run / METRICS).read_bytes()
    more = _resume(capsys, run, "--compute", "null", "--rounds", 1)
    assert "training ends after 1 round, not 1000 MACs: the search goes on as it was" in more.err
    assert (run / METRICS).read_bytes().startswith(searched)
    rounds = len(read_metrics(run))
    longer = _resume(capsys, run, "--rounds", 3)
    assert f"from round {rounds + 1} on its schedules run over the new length" in longer.err
    assert len(read_metrics(run)) == rounds + 2
