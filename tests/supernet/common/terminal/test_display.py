import io
import itertools
import re
import sys
import threading

import pytest
from helpers.wild import wild_text
from hypothesis import given
from rich.console import Console

from fedpareto.supernet.common.terminal.console import TextConsole, on_screen, progress_bar
from fedpareto.supernet.common.terminal.display import Display


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _display(clock: Clock, interval: float = 10.0) -> tuple[Display, io.StringIO]:
    """A display that is not on a terminal, and what it has written."""
    file = io.StringIO()
    console = TextConsole(file=file, force_terminal=False, soft_wrap=True, highlight=False)
    return Display(console, lambda: False, clock, interval), file


def test_quick_work_prints_nothing_where_there_is_no_terminal() -> None:
    display, file = _display(Clock())
    task = display.add_task("solving", total=5)
    display.start()
    for _ in range(5):
        display.advance(task)
    display.stop()
    assert file.getvalue() == ""


def test_a_line_says_what_is_done_and_what_is_left() -> None:
    clock = Clock()
    display, file = _display(clock)
    task = display.add_task("measuring blocks", total=436)
    display.start()
    clock.now += 10
    display.say()
    display.update(task, completed=109)
    clock.now += 90
    display.say()
    display.update(task, completed=436)
    display.say()
    display.stop()
    assert file.getvalue() == (
        "measuring blocks: 0 of 436 done, 10 s so far\n"
        "measuring blocks: 109 of 436 done, 100 s so far, about 5 min left\n"
        "measuring blocks: 436 of 436 done, 100 s so far\n"
    )


def test_what_was_done_before_does_not_make_the_rest_look_short() -> None:
    clock = Clock()
    display, file = _display(clock)
    task = display.add_task("round 9/10", total=100, completed=80)
    display.start()
    display.update(task, completed=90, description="round 10/10")
    clock.now += 60
    display.say()
    display.stop()
    assert file.getvalue() == "round 10/10: 90 of 100 done, 60 s so far, about 60 s left\n"


def test_another_total_is_another_phase_with_an_estimate_of_its_own() -> None:
    clock = Clock()
    display, file = _display(clock)
    task = display.add_task("working", total=None)
    display.start()
    clock.now += 10
    display.say()
    display.update(task, completed=4)
    display.say()
    clock.now += 90
    display.update(task, description="front of 7", completed=0, total=200)
    clock.now += 20
    display.update(task, completed=20)
    display.say()
    display.stop()
    assert file.getvalue() == (
        "working: 10 s so far\n"
        "working: 4 done, 10 s so far\n"
        "front of 7: 20 of 200 done, 2 min so far, about 3 min left\n"
    )


def test_lines_come_by_themselves_while_work_is_silent() -> None:
    written = threading.Event()

    class File(io.StringIO):
        def write(self, text: str) -> int:
            written.set()
            return super().write(text)

    file = File()
    display = Display(TextConsole(file=file, force_terminal=False), lambda: False, interval=0.001)
    display.add_task("one long step", total=1)
    display.start()
    assert written.wait(60)
    display.stop()
    assert file.getvalue().startswith("one long step: 0 of 1 done, 0 s so far\n")


def test_of_two_displays_the_later_one_speaks() -> None:
    outer, said_outside = _display(Clock())
    inner, said_inside = _display(Clock())
    outer.add_task("preparing", total=None)
    inner.add_task("reading images", total=7)
    outer.start()
    inner.start()
    outer.say()
    inner.say()
    inner.stop()
    outer.say()
    outer.stop()
    outer.say()
    assert said_inside.getvalue() == "reading images: 0 of 7 done, 0 s so far\n"
    assert said_outside.getvalue() == "preparing: 0 s so far\n"


def test_a_display_that_was_not_started_leaves_nothing_and_may_be_stopped_twice() -> None:
    display, file = _display(Clock())
    display.stop()
    display.start()
    display.start()
    display.stop()
    display.stop()
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7100, "118 min"), (7200, "2 h 0 min"), (45_000, "12 h 30 min")],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    clock = Clock()
    display, file = _display(clock)
    display.add_task("x", total=None)
    display.start()
    clock.now += seconds
    display.say()
    display.stop()
    assert file.getvalue() == f"x: {words} so far\n"


@given(wild_text(min_size=1))
def test_what_is_done_is_text_in_a_line_and_in_a_bar(text: str) -> None:
    display, file = _display(Clock())
    task = display.add_task(text, total=1)
    display.start()
    display.say()
    display.stop()
    assert file.getvalue().count("\n") == 1
    assert "\x1b" not in file.getvalue()
    drawn = io.StringIO()
    Console(file=drawn, width=400, color_system=None).print(display.make_tasks_table([display.tasks[task]]))
    assert "\x1b" not in drawn.getvalue()
    assert len(drawn.getvalue().splitlines()) == 1


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "term", "drawn"),
    [*itertools.product([True], ["xterm", "xterm-256color"], [True]), (True, "dumb", False), (False, "xterm", False)],
)
@pytest.mark.parametrize("colours", [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}])
def test_a_bar_is_drawn_on_a_terminal_that_can_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, drawn: bool, colours: dict[str, str]
) -> None:
    monkeypatch.setattr(sys, "stderr", _Terminal() if terminal else io.StringIO())
    monkeypatch.setenv("TERM", term)
    # A continuous integration that wants colours has no cursor.
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for name, value in colours.items():
        monkeypatch.setenv(name, value)
    assert on_screen() is drawn


@pytest.mark.parametrize("columns", [1, 7, 40, 10_000])
def test_a_bar_fits_any_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal = _Terminal()
    monkeypatch.setenv("COLUMNS", str(columns))
    console = TextConsole(file=terminal, force_terminal=True, color_system=None)
    display = Display(console, lambda: True)
    display.start()
    task = display.add_task("solving", total=3)
    display.advance(task)
    display.stop()
    lines = re.sub(r"\x1b\[[?\d]*\w", "", terminal.getvalue()).replace("\r", "\n").splitlines()
    assert lines
    assert max(map(len, lines)) <= columns


def test_the_bar_of_commands_is_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    display = progress_bar()
    display.add_task("solving", total=3)
    display.start()
    display.say()
    display.stop()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "solving: 0 of 3 done, 0 s so far\n")
