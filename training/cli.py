"""``train-supernet``: federated training of a supernet, new or resumed."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from fedpareto.supernet.common.command_line import CommandParser
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_values import typed
from fedpareto.supernet.common.formats.typed_yaml import read_yaml_mapping
from fedpareto.supernet.common.lasting_objects import lasting_objects
from fedpareto.supernet.common.terminal.console import run_command
from fedpareto.training.config.methods.config_type import config_type
from fedpareto.training.config.methods.registry import METHODS
from fedpareto.training.config.registries import AGGREGATORS, DATA_SETS, SAMPLERS, TRACKERS, check_names
from fedpareto.training.config.rules.unused_settings import refuse_unread
from fedpareto.training.config.run import RunConfig, check_unedited
from fedpareto.training.runs.session_keys import read_session_keys

PROG = "train-supernet"

#: Options of the command that are no settings of a run; a file of settings may give them, too.
_OF_COMMAND = ("resume", "sign", "verify")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, 2 after a one-line error, or 130 when it was interrupted."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> int:
    parser = _parser()
    values = parser.parse(arguments)
    # OpenMP threads that spin for long while they wait make a run many times slower beside any other busy process.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    resumed = _resumed(values)
    if resumed is None:
        config = parser.build(config_type(), values)
        refuse_unread(config)
    else:
        values = _with_options_of(resumed, parser, arguments)
        config = parser.build(config_type(), values)
    check_names(config)
    keys = read_session_keys(values.get("sign"), values.get("verify"), begun=bool(resumed or config.init))
    config = _relocated(config, [Path(str(path)) for path in values.config or ()])
    if "check" in values:
        from fedpareto.training.preflight.server import check_server  # noqa: PLC0415

        return check_server(config, resumed)
    # torch is imported from here on, so that --help and mistyped or meaningless options answer at once.
    with lasting_objects():
        from fedpareto.training.session import run_session, tell_end  # noqa: PLC0415

    return tell_end(run_session(config, resumed, keys=keys, command_line=[PROG, *arguments]))


def _with_options_of(resumed: Path, parser: CommandParser, arguments: Sequence[str]) -> Namespace:
    """Return the options that a run was trained with, overridden by all options that are given now.

    Raises:
        UserError: the folder holds no run, or its configuration was altered or says something else.
    """
    from fedpareto.training.runs.folder import CONFIG, check_holds_run, check_own_output  # noqa: PLC0415 - torch

    check_holds_run(resumed)
    check_unedited(resumed / CONFIG)
    own = str(resumed / CONFIG)
    values = parser.parse(["--config", own, *arguments])
    # What the run itself says is where it was written, which may be another place.
    if parser.origins.get("output") != own:
        check_own_output(values.output, resumed)
    return values


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=PROG, description="Train a once-for-all supernet federatedly, with a curriculum from a Pareto cache."
    )
    parser.add_config("--config", config_type(), "YAML file of these options; later options override it", _OF_COMMAND)
    # Without a default: an option that was given nothing is told from one that was not given.
    for option, words in (
        (
            "--resume",
            "folder of a run to go on with; it keeps its configuration, but may be given more --rounds or --compute",
        ),
        ("--sign", "PEM file of an Ed25519 private key; every checkpoint that is written is signed with it"),
        ("--verify", "PEM file of a public key; the run that --resume or --init names must be signed with it"),
    ):
        parser.add_argument(option, type=str, action=_Once, default=argparse.SUPPRESS, help=words)
    parser.add_argument(
        "--check",
        action="store_true",
        default=argparse.SUPPRESS,
        help="with --engine flower: check this server for the run, line by line with what to do, and start nothing",
    )
    parser.add_class_arguments(config_type())
    methods = ", ".join(f"{spec.name} ({spec.summary})" for spec in METHODS.everything())
    parser.describe("method", f"{methods}.")
    for name, registry in (
        ("data.name", DATA_SETS),
        ("clients.sampler", SAMPLERS),
        ("server.aggregation", AGGREGATORS),
        ("tracking.also", TRACKERS),
    ):
        if registry.others():
            parser.describe(name, f"{parser.description_of(name)} Others here: {', '.join(registry.others())}.")
    parser.spell_with_dashes()
    return parser


class _Once(argparse.Action):
    """Option that names one thing, however often it is given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest, None)
        if before not in (None, values):
            parser.error(f"{option_string} is given twice, as {before} and as {values}; give one")
        setattr(namespace, self.dest, values)


def _resumed(values: Namespace) -> Path | None:
    """Return the folder of the run to resume; None only where none was asked for.

    Raises:
        UserError: the option was given nothing.
    """
    if "resume" not in values:
        return None
    if not (values.resume or "").strip():
        raise UserError("resume is empty, as if a variable was not set; name a run's folder, or leave resume out")
    return Path(values.resume)


def _output_in(path: Path) -> str | None:
    """Return the output that a configuration names."""
    output: str | None = typed(read_yaml_mapping(path).get("output"), str | None, f"{path}: output")
    return output


def _relocated(config: RunConfig, files: Sequence[Path]) -> RunConfig:
    """Return ``config`` with the paths of copies in run folders as they are now, for all runs that it was read from."""
    if not files:
        return config
    from fedpareto.training.config.inputs import relocated  # noqa: PLC0415
    from fedpareto.training.runs.folder import holds_run  # noqa: PLC0415 - torch

    for path in files:
        if holds_run(path.parent):
            config = relocated(config, _output_in(path), path.parent)
    return config
