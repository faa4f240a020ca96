import io

import pytest
from rich.console import Console
from rich.progress import Progress

from cache.progress import SILENT, Listener, shown_on
from supernet.console import end_progress


def test_nobody_needs_to_listen(capsys: pytest.CaptureFixture[str]) -> None:
    SILENT.report("working", 1, 2)
    SILENT.remark("a sentence")
    assert capsys.readouterr() == ("", "")


def test_a_listener_is_told_what_it_asked_for() -> None:
    reports: list[tuple[str, int, int]] = []
    remarks: list[str] = []
    listener = Listener(lambda *call: reports.append(call), remarks.append)
    listener.report("working", 1, 2)
    listener.remark("a sentence")
    assert (reports, remarks) == ([("working", 1, 2)], ["a sentence"])


def test_work_is_one_bar_that_starts_with_the_first_report() -> None:
    drawn = io.StringIO()
    progress = Progress(console=Console(file=drawn, force_terminal=False, width=120))
    listener = shown_on(progress)
    started = [progress.live.is_started]
    listener.report("solving", 3, 12)
    listener.report("front of 7", 5, 10)
    started.append(progress.live.is_started)
    assert started == [False, True]
    (task,) = progress.tasks
    assert (task.description, task.completed, task.total) == ("front of 7", 5, 10)
    end_progress(progress)
    assert "front of 7" in drawn.getvalue()


def test_work_without_a_report_draws_nothing() -> None:
    drawn = io.StringIO()
    progress = Progress(console=Console(file=drawn, force_terminal=False, width=120))
    shown_on(progress)
    end_progress(progress)
    assert drawn.getvalue() == ""


def test_remarks_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(console=Console(file=io.StringIO()))
    shown_on(progress).remark("the frontier is damaged; [/computing] it again")
    assert capsys.readouterr() == ("", "the frontier is damaged; [/computing] it again\n")
    assert not progress.live.is_started
