"""Progress display of long work: a bar on a terminal, a plain line every ten seconds in a file or a pipe."""

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from fedpareto.supernet.common.terminal.words import printable

#: Seconds between two lines where there is no terminal.
INTERVAL = 10.0


class _What(ProgressColumn):
    """Column with the description of a task, on one line whatever characters it has."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        return Text(printable(task.description))


@dataclasses.dataclass(frozen=True)
class _Phase:
    """Phase of a task with one total: the steps done when it began, and the time of that."""

    total: float | None
    done: float
    began: float


class Display(Progress):
    """Shows tasks with counts, elapsed and remaining time; of several displays the one that started last speaks.

    Quick work leaves no line in a file: the first comes after ``interval`` seconds.

    Args:
        console: console that is written to.
        on_screen: called at the start; true if the console is a terminal that can draw.
        clock: seconds, for elapsed and remaining time.
        interval: seconds between two lines.
    """

    _started: ClassVar[list["Display"]] = []

    def __init__(
        self,
        console: Console,
        on_screen: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        interval: float = INTERVAL,
    ) -> None:
        bar = (
            _What(),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        super().__init__(*bar, console=console, get_time=clock)
        self._on_screen, self._interval = on_screen, interval
        self._phases: dict[TaskID, _Phase] = {}
        self._began = 0.0
        self._ended: threading.Event | None = None

    def add_task(self, description: str, *settings: Any, **named: Any) -> TaskID:
        """Add a task."""
        number = super().add_task(description, *settings, **named)
        self._begin(self._tasks[number])
        return number

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task; another total begins another phase, whose remaining time is estimated anew."""
        super().update(task_id, **changes)
        task, phase = self._tasks[task_id], self._phases[task_id]
        if task.total != phase.total or task.completed < phase.done:
            self._begin(task)

    def follow(self) -> None:
        """Begin to print lines where there is no terminal; on one nothing is drawn before the start."""
        if not self._on_screen():
            self.start()

    def start(self) -> None:
        """Begin to show the tasks."""
        if self in self._started:
            return
        self._started.append(self)
        self._began = self.get_time()
        if self._on_screen():
            super().start()
        else:
            self._ended = threading.Event()
            threading.Thread(target=self._speak, args=(self._ended,), daemon=True).start()

    def stop(self) -> None:
        """Leave the terminal as it was; without a start there is nothing to leave."""
        if self not in self._started:
            return
        self._started.remove(self)
        if self._ended is None:
            super().stop()
        else:
            self._ended.set()
            self._ended = None

    def say(self) -> None:
        """Print a line for each task, unless a display that started later speaks."""
        if self._started[-1:] == [self]:
            for task in self.tasks:
                self.console.print(self._line(task))

    def _begin(self, task: Task) -> None:
        self._phases[task.id] = _Phase(task.total, task.completed, self.get_time())

    def _speak(self, ended: threading.Event) -> None:
        while not ended.wait(self._interval):
            self.say()

    def _line(self, task: Task) -> str:
        now, phase = self.get_time(), self._phases[task.id]
        parts = [f"{_spent(now - self._began)} so far"]
        if task.total is not None:
            parts.insert(0, f"{task.completed:,.0f} of {task.total:,.0f} done")
            advanced, missing = task.completed - phase.done, task.total - task.completed
            if advanced > 0 and missing > 0:
                parts.append(f"about {_spent((now - phase.began) * missing / advanced)} left")
        elif task.completed:
            parts.insert(0, f"{task.completed:,.0f} done")
        return f"{task.description}: {', '.join(parts)}"


def _spent(seconds: float) -> str:
    """Return a duration, e.g. ``45 s``, ``12 min`` or ``3 h 20 min``, short enough to be read at once."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
