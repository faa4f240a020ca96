import io

import pytest

from fedpareto.supernet.common.terminal.console import TextConsole
from fedpareto.supernet.common.terminal.display import Display
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener, progress_display, shown_on


def _display() -> tuple[Display, io.StringIO]:
    drawn = io.StringIO()
    console = TextConsole(file=drawn, force_terminal=True, width=120, color_system=None)
    return Display(console, lambda: True), drawn


def test_nobody_needs_to_listen(capsys: pytest.CaptureFixture[str]) -> None:
    SILENT.report("working", 1, 2)
    SILENT.remark("a sentence")
    assert capsys.readouterr() == ("", "")


def test_a_listener_is_told_what_it_asked_for() -> None:
    reports: list[tuple[str, int, int]] = []
    remarks: list[str] = []
    listener = ProgressListener(lambda *call: reports.append(call), remarks.append)
    listener.report("working", 1, 2)
    listener.remark("a sentence")
    assert (reports, remarks) == ([("working", 1, 2)], ["a sentence"])


def test_work_is_one_bar_that_starts_with_the_first_report() -> None:
    display, drawn = _display()
    listener = shown_on(display)
    assert drawn.getvalue() == ""
    listener.report("solving", 3, 12)
    listener.report("front of 7", 5, 10)
    (task,) = display.tasks
    assert (task.description, task.completed, task.total) == ("front of 7", 5, 10)
    display.stop()
    assert "front of 7" in drawn.getvalue()


def test_work_without_a_report_draws_nothing() -> None:
    display, drawn = _display()
    shown_on(display)
    display.stop()
    assert drawn.getvalue() == ""


def test_where_there_is_no_terminal_work_without_a_report_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(TextConsole(stderr=True, soft_wrap=True), lambda: False)
    shown_on(display, "preparing the run")
    display.say()
    display.stop()
    assert capsys.readouterr() == ("", "preparing the run: 0 s so far\n")


def test_remarks_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as listener:
        listener.remark("the frontier is damaged; [/computing] it again")
    assert capsys.readouterr() == ("", "the frontier is damaged; [/computing] it again\n")
