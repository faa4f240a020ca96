"""The command ``compare-methods``, which compares training methods on the same images, clients and compute."""

import dataclasses
from collections.abc import Sequence

from fedpareto.search.comparison.compare import compare
from fedpareto.search.comparison.going_on import told_to_go_on
from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.formats.units import format_at_least
from fedpareto.supernet.common.terminal.console import next_step, run_command

PROG = "compare-methods"


@dataclasses.dataclass
class CompareOptions:
    """Options of ``compare-methods``.

    Attributes:
        config: YAML file of the study: name, methods, seeds, budgets, run; yardsticks adds what one would get without
            a supernet, reference makes one method's rounds the compute of all.
        output: folder of runs and results; runs/NAME when left out. What is finished there is not run again.
        data_root: folder of the images, in place of the study's.
        jobs: runs at once, each a process of its own.
    """

    config: str
    output: str | None = None
    data_root: str | None = None
    jobs: int = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, 2 after a one-line error, or 130 when it was interrupted."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> None:
    parser = options_parser(
        PROG, "Compare training methods on the same images, clients and compute, over several seeds.", CompareOptions
    )
    options = parser.parse(arguments)
    with told_to_go_on(PROG, arguments):
        found = compare(options.config, output=options.output, data_root=options.data_root, jobs=options.jobs)
    from fedpareto.training.session import next_search  # noqa: PLC0415 - imports torch

    next_step(next_search(found.folder / "runs" / found.study.trials[0].name, format_at_least(found.study.budgets[-1])))
