"""``train-supernet``: federated training of a supernet, new or resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from supernet.console import (
    EXIT_INTERRUPTED,
    CommandParser,
    end_progress,
    next_step,
    print_table,
    progress_bar,
    run_command,
    stderr,
)
from supernet.units import format_bytes, format_quantity
from training.config import RunConfig

PROG = "train-supernet"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 0, 2 after a one-line error, or 130 when it was interrupted."""
    run_command(PROG, _run, arguments)


def _run(arguments: Sequence[str]) -> int:
    parser = _parser()
    resumed = _resume_argument(arguments)
    if resumed is not None:
        from training.run_folder import CONFIG, check_run  # noqa: PLC0415 - imports torch

        check_run(resumed)
        parser.default_config_files = [str(resumed / CONFIG)]
    parsed = parser.parse(arguments)
    values = parser.instantiate(parsed).as_dict()
    config = RunConfig(**{name: values[name] for name in RunConfig.__dataclass_fields__})
    return _train(config, resumed)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=PROG,
        description="Train a once-for-all supernet federatedly, with a curriculum from a Pareto cache.",
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


def _train(config: RunConfig, resumed: Path | None) -> int:
    # torch is imported here, so that --help and mistyped options answer at once.
    from training import setup  # noqa: PLC0415
    from training.interrupt import stop_on_interrupt  # noqa: PLC0415
    from training.rounds import train  # noqa: PLC0415
    from training.run_folder import locked  # noqa: PLC0415

    prepared = setup.resumed_run(resumed, config) if resumed else _new_run(config)
    rounds, start = prepared.config.rounds, prepared.checkpoint.state.round
    if start >= rounds:
        stderr.print(f"{prepared.folder} is finished: {rounds} of {rounds} rounds are done")
        _print_end(prepared.folder)
        return 0
    verb = f"resuming after round {start}" if resumed else "training"
    stderr.print(f"{verb}: {_description(prepared)}")
    with locked(prepared.folder), stop_on_interrupt() as stop:
        tracker = _trackers(prepared)
        try:
            checkpoint = prepared.checkpoint
            run = setup.assemble(prepared, tracker, stop)
            state = train(run, checkpoint.state, checkpoint.tensors, checkpoint.velocity)
        finally:
            tracker.close()
    if state.round < rounds:
        stderr.print(f"stopped after round {state.round} of {rounds}, with a checkpoint")
        next_step(f"train-supernet --resume {prepared.folder}")
        return EXIT_INTERRUPTED
    sent = f"{format_bytes(state.bytes_up)} up, {format_bytes(state.bytes_down)} down"
    stderr.print(f"trained {rounds} rounds: {sent}, failures {dict(state.failures) or 'none'}")
    _print_end(prepared.folder)
    return 0


def _new_run(config: RunConfig) -> Any:
    from training import setup  # noqa: PLC0415

    progress = progress_bar()
    task = progress.add_task("building the cache", total=None)

    def report(generation: int, generations: int, points: int) -> None:
        progress.start()
        description = f"building the cache (front of {points})"
        progress.update(task, completed=generation, total=generations, description=description)

    try:
        return setup.new_run(config, report)
    finally:
        end_progress(progress)


def _trackers(prepared: Any) -> Any:
    from training.run_folder import METRICS  # noqa: PLC0415
    from training.trackers.metrics_file import MetricsFile  # noqa: PLC0415
    from training.trackers.protocol import Tracker, Trackers  # noqa: PLC0415
    from training.trackers.terminal import TerminalProgress  # noqa: PLC0415
    from training.trackers.wandb import WandbTracker  # noqa: PLC0415

    config, folder, checkpoint = prepared.config, prepared.folder, prepared.checkpoint
    done = checkpoint.state.round
    trackers: list[Tracker] = [MetricsFile(folder / METRICS, done)]
    if config.tracking.wandb != "off":
        trackers.append(
            WandbTracker(
                folder,
                folder.name,
                config.tracking.project,
                config.tracking.wandb,
                checkpoint.config,
                checkpoint.state.wandb_id,
            )
        )
    if config.tracking.progress:
        trackers.append(TerminalProgress(config.rounds, config.clients.per_round, done))
    return Trackers(trackers)


def _description(prepared: Any) -> str:
    config, entries = prepared.config, prepared.cache.entries
    sizes = [len(members) for members in prepared.split.clients]
    return (
        f"{prepared.space.name} on {config.data.name} ({len(prepared.split.classes)} classes), {config.rounds} rounds "
        f"of {config.clients.per_round} from {config.clients.count} clients ({min(sizes)} to {max(sizes)} images, "
        f"{config.partition.scheme}), {len(entries)} cache entries of {format_quantity(entries[0].macs)} to "
        f"{format_quantity(entries[-1].macs)} MACs, on {config.device}; run: {prepared.folder}"
    )


def _print_end(folder: Path) -> None:
    import json  # noqa: PLC0415

    from training.run_folder import METRICS  # noqa: PLC0415

    records = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    evaluated = [record for record in records if record["probes"]]
    if evaluated:
        table = Table(title=f"validation accuracy after round {evaluated[-1]['round']}")
        for column in ("MACs", "params", "accuracy"):
            table.add_column(column, justify="right")
        for probe in evaluated[-1]["probes"]:
            table.add_row(f"{probe['macs']:,}", f"{probe['params']:,}", f"{probe['accuracy']:.1%}")
        print_table(table)
    middle = evaluated[-1]["probes"][len(evaluated[-1]["probes"]) // 2]["macs"]
    next_step(f"search-subnet --run {folder} --flops-budget {format_quantity(middle)}")
