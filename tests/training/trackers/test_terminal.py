import dataclasses
from collections.abc import Iterator

import pytest
from helpers.runs.trackers import QUIET

from fedpareto.supernet.common.terminal import console
from fedpareto.supernet.common.terminal.display import Display
from fedpareto.training.evaluation.evaluator import Probe
from fedpareto.training.trackers import terminal
from fedpareto.training.trackers.records import LostRound
from fedpareto.training.trackers.terminal import TerminalProgress
from fedpareto.training.traffic import NO_TRAFFIC

_EVALUATED = dataclasses.replace(QUIET, probes=(Probe(35_300_000, 1, 0.5), Probe(179_700_000, 1, 0.625)))


@pytest.fixture(autouse=True)
def _displays_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End all displays with their test: one that goes on speaks on the standard error of tests that come later."""
    made, begun = console.progress_bar, list[Display]()

    def kept() -> Display:
        begun.append(made())
        return begun[-1]

    monkeypatch.setattr(terminal, "progress_bar", kept)
    yield
    for display in begun:
        display.stop()


def test_an_evaluated_round_is_one_line_with_loss_time_overhead_and_accuracies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = TerminalProgress(rounds=10, clients_per_round=2, done=3)
    progress.round_done(_EVALUATED)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "round 4/10: loss 1.234, 12.3 s, 2.8% of it not SGD; validation accuracy by MACs: 35.3M 50.0%  179.7M 62.5%\n"
    )


def test_a_private_round_says_what_it_has_cost_and_how_much_was_clipped(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress(rounds=10, clients_per_round=2, done=3)
    progress.round_done(dataclasses.replace(_EVALUATED, epsilon=3.2149, delta=1e-5, clipped=0.625))
    progress.round_done(dataclasses.replace(_EVALUATED, clipped=1.0))
    first, second = capsys.readouterr().err.splitlines()
    assert "of it not SGD, ε 3.21 at δ 1e-05, 62% of updates clipped; validation accuracy" in first
    assert "of it not SGD, 100% of updates clipped; validation accuracy" in second


def test_a_round_without_evaluation_and_failures_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress(rounds=10, clients_per_round=2, done=0)
    progress.client_done(1, 1, 2)
    progress.round_done(QUIET)
    assert capsys.readouterr().err == ""


def test_a_round_of_a_search_says_between_what_accuracies_its_networks_are(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress(rounds=None, clients_per_round=2, done=0)
    progress.round_done(dataclasses.replace(QUIET, tested={"stage0-width": 0.5, "current": 0.25, "stage1-depth": 0.3}))
    assert capsys.readouterr().err == "round 4: validation accuracy of 3 networks of the search: 25.0% to 50.0%\n"


def test_rounds_that_are_not_known_are_estimated_from_what_follows_a_search(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "on_screen", lambda: True)
    monkeypatch.setattr(console.stderr, "_force_terminal", True)
    monkeypatch.setattr(console.stderr, "_width", 100, raising=False)
    progress = TerminalProgress(rounds=None, clients_per_round=4, done=0)
    for number, done in ((1, 0.0), (2, 0.0), (3, 0.0), (4, 0.125), (5, 0.25)):
        progress.client_done(number, 4, 4)
        progress.round_done(dataclasses.replace(QUIET, round=number, done=done))
    progress.close()
    # Three rounds of search, and two of eight that are a quarter of the training.
    assert "20/44" in capsys.readouterr().err


def test_failures_are_printed_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress(rounds=10, clients_per_round=2, done=0)
    gone = {"client": 0, "failure": "lost", "reason": "it is gone"}
    progress.round_done(
        dataclasses.replace(QUIET, failures={"shape": 2, "non-finite": 1}, evaluation_failures=(gone, gone))
    )
    assert capsys.readouterr().err == (
        "round 4: 2 failed (shape)\nround 4: 1 failed (non-finite)\nround 4: 2 failed in the evaluation (lost)\n"
    )


def test_failures_of_a_lost_round_are_printed_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress(rounds=10, clients_per_round=2, done=0)
    progress.round_lost(LostRound(4, (), {"lost": 2, "timeout": 1}, NO_TRAFFIC))
    assert capsys.readouterr().err == "round 4: 2 failed (lost)\nround 4: 1 failed (timeout)\n"


def test_where_there_is_no_terminal_a_line_says_how_far_the_rounds_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    displays: list[Display] = []

    def kept() -> Display:
        displays.append(console.progress_bar())
        return displays[-1]

    monkeypatch.setattr(terminal, "progress_bar", kept)
    progress = TerminalProgress(rounds=10, clients_per_round=4, done=3)
    progress.client_done(4, 1, 4)
    displays[0].say()
    progress.close()
    assert capsys.readouterr().err.startswith("round 4/10: 13 of 40 done, 0 s so far, about 0 s left\n")


def test_where_there_is_no_terminal_closing_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    TerminalProgress(rounds=10, clients_per_round=2, done=0).close()
    assert capsys.readouterr().err == ""


def test_on_a_terminal_the_bar_counts_the_clients_of_all_rounds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "on_screen", lambda: True)
    monkeypatch.setattr(console.stderr, "_force_terminal", True)
    monkeypatch.setattr(console.stderr, "_width", 100, raising=False)
    progress = TerminalProgress(rounds=10, clients_per_round=4, done=3)
    progress.client_done(4, 3, 4)
    progress.round_done(_EVALUATED)
    progress.close()
    shown = capsys.readouterr().err
    assert "round 4/10" in shown
    assert "15/40" in shown
    assert "62.5%" in shown


def test_a_private_round_says_nothing_of_its_training_that_is_withheld(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress(rounds=10, clients_per_round=2, done=3)
    quiet = dataclasses.replace(_EVALUATED, train_loss=None, seconds=None, sgd_seconds=None, overhead_share=None)
    progress.round_done(dataclasses.replace(quiet, epsilon=3.2149, delta=1e-5))
    progress.round_done(quiet)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "round 4/10: ε 3.21 at δ 1e-05; validation accuracy by MACs: 35.3M 50.0%  179.7M 62.5%"
    assert second == "round 4/10: validation accuracy by MACs: 35.3M 50.0%  179.7M 62.5%"
