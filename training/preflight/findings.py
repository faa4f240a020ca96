"""Findings of a preflight: run check after check whatever is wrong, and print them as one table."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.console import print_table
from fedpareto.supernet.common.terminal.words import counted

State = Literal["ok", "warning", "failed"]

#: Exit code of a preflight in which something failed; 2 is a mistake in its options.
EXIT_FAILED = 1


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of a preflight.

    Attributes:
        what: the thing that was checked.
        found: the value, or what is wrong.
        state: whether a run can go well with it: ok, warning (it may) or failed (it cannot).
        remedy: words for whoever has to mend it; empty only where it is ok.

    Raises:
        ValueError: something is wrong and nothing is said to be done.
    """

    what: str
    found: str
    state: State = "ok"
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.state != "ok" and not self.remedy:
            raise ValueError(f"{self.what}: a finding that is not ok needs a remedy")


class Check(NamedTuple):
    """Check of one thing.

    Attributes:
        what: the thing.
        run: returns what was found, one line or several.
        remedy: words for whoever has to mend it where it cannot even be checked.
    """

    what: str
    run: Callable[[], Finding | Sequence[Finding]]
    remedy: str


def findings_of(checks: Iterable[Check]) -> list[Finding]:
    """Run all checks; one that raises has failed, and those after it run nevertheless."""
    found: list[Finding] = []
    for check in checks:
        try:
            result = check.run()
        except UserError as error:
            result = Finding(check.what, str(error), "failed", check.remedy)
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            result = Finding(check.what, f"{where}{error.strerror or error}", "failed", check.remedy)
        except Exception as error:
            # Whatever libraries stumble over on a machine that is not in order: that is what is looked for here.
            words = " ".join(str(error).split())[:200]
            result = Finding(check.what, f"{type(error).__name__}: {words}", "failed", check.remedy)
        found += [result] if isinstance(result, Finding) else result
    return found


def report(title: str, findings: Sequence[Finding]) -> int:
    """Print the findings as a table; return the exit code: 0 if none failed."""
    # What is in order needs no advice.
    rows = [(each.what, each.found, each.state, each.remedy if each.state != "ok" else "") for each in findings]
    failed = sum(finding.state == "failed" for finding in findings)
    warned = sum(finding.state == "warning" for finding in findings)
    ended = f"{counted(failed, 'line')} failed, {counted(warned, 'warning')}" if failed or warned else "all is well"
    print_table(f"{title}: {ended}", ("checked", "found", "state", "remedy"), rows, figures=4)
    return EXIT_FAILED if failed else 0
