"""``search-subnet`` in an empty folder, for tests."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fedpareto.search.cli import main
from helpers.commands import Outcome, check_refused, run_main

#: How far a search is, which is no mistake.
_PROGRESS = re.compile(r"(solving, [\d,]+ labels|front of \d+) ")


class Searching:
    """``search-subnet`` in a folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys, self.folder = capsys, folder

    def __call__(self, *arguments: object) -> Outcome:
        return run_main(main, self.capsys, *arguments)

    def json(self, *arguments: object) -> dict[str, Any]:
        outcome = self(*arguments, "--json")
        assert outcome.code == 0, outcome.err
        report: dict[str, Any] = json.loads(outcome.out)
        return report

    def error(self, *arguments: object) -> str:
        before = sorted(self.folder.rglob("*"))
        outcome = self(*arguments)
        kept = [line for line in outcome.err.splitlines(keepends=True) if line.strip() and not _PROGRESS.match(line)]
        line = check_refused(outcome._replace(err="".join(kept)), "search-subnet")
        assert sorted(self.folder.rglob("*")) == before
        return line
