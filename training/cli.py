"""``train-supernet``: federated training of a supernet, new or resumed."""

import os
from collections.abc import Sequence
from pathlib import Path

from supernet.console import CommandParser, run_command
from training.config import RunConfig, check_unedited

PROG = "train-supernet"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, 2 after a one-line error, or 130 when it was interrupted."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> int:
    parser = _parser()
    resumed = _resume_argument(arguments)
    if resumed is not None and (resumed / "config.yaml").is_file():
        check_unedited(resumed / "config.yaml")
        parser.default_config_files = [str(resumed / "config.yaml")]
    values = parser.instantiate(parser.parse(arguments)).as_dict()
    config = RunConfig(**{name: values[name] for name in RunConfig.__dataclass_fields__})
    # OpenMP threads that spin for long while they wait make a run many times slower beside any other busy process.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    # torch is imported here, so that --help and mistyped options answer at once.
    from training.session import run_session  # noqa: PLC0415

    return run_session(config, resumed)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=PROG, description="Train a once-for-all supernet federatedly, with a curriculum from a Pareto cache."
    )
    parser.add_argument("--config", action="config", help="YAML file of these options; later options override it")
    parser.add_argument("--resume", type=str, help="folder of a run to go on with; it keeps its configuration")
    parser.add_class_arguments(RunConfig)
    parser.spell_with_dashes()
    return parser


def _resume_argument(arguments: Sequence[str]) -> Path | None:
    """Return the value of ``--resume``, which decides the defaults of all other options."""
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        if argument == "--resume" and following:
            return Path(following)
        if argument.startswith("--resume="):
            return Path(argument.partition("=")[2])
    return None
