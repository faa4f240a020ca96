"""``node-check``: whether a client's machine is ready for a federation, line by line, with what to do."""

from collections.abc import Sequence

from fedpareto.supernet.common.command_line import options_parser
from fedpareto.supernet.common.terminal.console import run_command
from fedpareto.training.preflight.findings import findings_of, report
from fedpareto.training.preflight.node import NodeCheckOptions, check_options, node_checks

PROG = "node-check"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, 1 if a check failed, or 2 after a one-line error."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> int:
    parser = options_parser(PROG, "Check that a client's machine is ready to be a SuperNode.", NodeCheckOptions)
    options = NodeCheckOptions(**parser.instantiate(parser.parse(arguments)).as_dict())
    check_options(options)
    return report("preflight of this node", findings_of(node_checks(options)))
