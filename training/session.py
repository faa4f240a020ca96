"""Session of a run: from its configuration to its last round, with the messages to the user on the way."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fedpareto.cache.cache_file import read_cache_of_any_classes
from fedpareto.supernet.architecture_file import ARCHITECTURE
from fedpareto.supernet.common.formats.units import format_at_least, format_bytes, format_quantity, parse_quantity
from fedpareto.supernet.common.storage.path_checks import is_file
from fedpareto.supernet.common.storage.signatures import NO_KEYS, Keys, is_signed
from fedpareto.supernet.common.terminal.console import next_step, stderr
from fedpareto.supernet.common.terminal.progress import progress_display
from fedpareto.supernet.common.terminal.words import command, counted
from fedpareto.supernet.space_file import load_space
from fedpareto.training.config.evaluation import Metric
from fedpareto.training.config.inputs import PLACES, anchored, check_paths, named, replaced
from fedpareto.training.config.run import EQUAL_COMPUTE, RunConfig, config_to_mapping, write_config
from fedpareto.training.data.image_data import ImageData
from fedpareto.training.engines.flower.federation import opened_link
from fedpareto.training.engines.flower.superlink import Link
from fedpareto.training.evaluation.evaluator import Probe
from fedpareto.training.execution.allocator import keep_freed_memory
from fedpareto.training.privacy.accountant import guarantee
from fedpareto.training.privacy.coverage import begun_apart, coverage
from fedpareto.training.rounds.interrupt import StopRequest, stop_on_interrupt
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import checkpoint_folder, prune_checkpoints
from fedpareto.training.runs.folder import CACHE, CONFIG, METRICS, SPACE, check_new_run, locked, read_run_config
from fedpareto.training.runs.kept_images import kept_images
from fedpareto.training.runs.leftovers import opened_to_write
from fedpareto.training.runs.progress import extent, known_rounds
from fedpareto.training.runs.reservation import reserved
from fedpareto.training.runs.state import RunState
from fedpareto.training.runs.verification import verify_run
from fedpareto.training.setup import (
    Prepared,
    assemble,
    new_run,
    resumed_run,
    run_folder,
    signer_of,
    write_run_session,
)
from fedpareto.training.trackers.metrics_file import MetricsFile, read_records
from fedpareto.training.trackers.pace import Pace
from fedpareto.training.trackers.probe_table import print_probes
from fedpareto.training.trackers.protocol import Tracker, TrackerContext, Trackers, new_tracker
from fedpareto.training.trackers.records import record_from_json
from fedpareto.training.trackers.terminal import TerminalProgress
from fedpareto.training.trackers.wandb import WandbTracker, check_environment, require_login


@dataclasses.dataclass(frozen=True)
class SessionEnd:
    """End of a session on a run.

    Attributes:
        folder: folder of the run.
        config: configuration of the run.
        state: state after its last round.
        finished: whether nothing is left to do; a run that was interrupted goes on when it is resumed.
        trained: whether it trained at all: a finished run that is resumed has nothing to do.
        exit_code: exit code of a command: 0, 130 after Ctrl-C, 143 after SIGTERM.
    """

    folder: Path
    config: RunConfig
    state: RunState
    finished: bool
    trained: bool = True
    exit_code: int = 0


def run_session(
    config: RunConfig,
    resumed: Path | None,
    callbacks: Sequence[Tracker] = (),
    *,
    images: ImageData | None = None,
    ends_process: bool = True,
    keys: Keys = NO_KEYS,
    command_line: Sequence[str] | None = None,
) -> SessionEnd:
    """Start a new run, or go on with the one in the folder ``resumed``, until it is finished or interrupted.

    Args:
        config: configuration of the run.
        resumed: folder of a run to go on with.
        callbacks: trackers that are told of every event beside the run's own trackers.
        images: images of a new run that were given in memory, to be kept beside it.
        ends_process: whether the process ends with the session, so that an interrupted one need not wait for anything.
        keys: keys that checkpoints are signed with, and that what is resumed or begun with must be signed with.
        command_line: words of the command, for the run's provenance; None from Python.

    Raises:
        UserError: any mistake that the user can mend.
    """
    if resumed is not None:
        verify_run(resumed, "newest", keys.verify)
    # Before torch starts threads of its own.
    keep_freed_memory()
    with opened_link(config) as link:
        check_environment(config.tracking.wandb)
        require_login(config.tracking.wandb)
        told = _Told(callbacks, images, ends_process, keys, command_line)
        ready = _made(config, link, told) if resumed is None else _reopened(resumed, config, link)
        with ready as prepared:
            return _train(prepared, resumed, told)


class _Told(NamedTuple):
    """Arguments of a session beside its configuration; see ``run_session``."""

    callbacks: Sequence[Tracker]
    images: ImageData | None
    ends_process: bool
    keys: Keys
    command_line: Sequence[str] | None


@contextlib.contextmanager
def _made(config: RunConfig, link: Link | None, told: _Told) -> Iterator[Prepared]:
    """Make a new run, and hold its lock; nobody else makes one in the same place meanwhile."""
    check_paths(config)
    folder = run_folder(config)
    check_new_run(folder)
    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as making:
            making.enter_context(reserved(folder))
            if told.images is not None:
                config = making.enter_context(kept_images(told.images, config, folder))
            with progress_display("preparing the run") as listener:
                prepared = new_run(config, listener, link, told.keys, told.command_line)
            held.enter_context(locked(prepared.folder))
        yield prepared


@contextlib.contextmanager
def _reopened(folder: Path, config: RunConfig, link: Link | None) -> Iterator[Prepared]:
    """Open a run to go on with, and hold its lock."""
    with opened_to_write(folder):
        with progress_display("preparing the run") as listener:
            prepared = resumed_run(folder, config, listener, link)
        yield prepared


def _train(prepared: Prepared, resumed: Path | None, told: _Told) -> SessionEnd:
    folder, start = prepared.folder, prepared.checkpoint
    # What a process that was killed would have removed, or what is no longer to be kept.
    prune_checkpoints(folder, prepared.config.checkpoint.keep, start.state.best)
    metrics = MetricsFile(folder / METRICS, start.state.round)
    if metrics.remark is not None:
        stderr.print(metrics.remark)
    if prepared.ends(start.state):
        _remember_places(prepared)
        return SessionEnd(folder, prepared.config, start.state, finished=True, trained=False)
    if resumed is not None and told.keys.sign is None and is_signed(checkpoint_folder(folder, start.state.round)):
        stderr.print("the run's checkpoints were signed; those from here on are not, without --sign KEY")
    verb = "training" if resumed is None else f"resuming after round {start.state.round}"
    stderr.print(f"{verb}: {_description(prepared)}")
    # What was changed for another machine holds for the next resume too.
    write_config(folder / CONFIG, prepared.config)
    write_run_session(folder, config_to_mapping(prepared.config), start.state.round, told.command_line)
    pace = Pace(start.state.round)
    stop = StopRequest(pace.words)
    with stop_on_interrupt(folder, stop, ends_process=told.ends_process):
        tracker = _trackers(prepared, [metrics, pace, *told.callbacks], stop)
        try:
            run = assemble(prepared, tracker, stop, stop, signer_of(told.keys.sign))
            state = train(run, start.state, start.models)
        finally:
            tracker.close()
    # Whoever did not ask to stop has all there is, also if the clients that are there have no privacy to spend.
    finished = prepared.ends(state) or not stop()
    if not finished:
        stderr.print(_stopped_words(prepared, state, stop))
    return SessionEnd(folder, prepared.config, state, finished, exit_code=0 if finished else stop.exit_code)


def tell_end(end: SessionEnd) -> int:
    """Print the outcome of a session, and the useful next command; return the exit code."""
    if not end.finished:
        next_step(command("train-supernet", resume=end.folder))
        return end.exit_code
    if end.trained:
        _print_totals(end.config, end.state)
    else:
        done = counted(end.state.round, "round")
        more = "--rounds or --compute" if extent(end.config, end.state).finished else "a larger --privacy.epsilon"
        stderr.print(f"{end.folder} is finished after {done}; give it more with {more}")
    if not extent(end.config, end.state).finished:
        stderr.print(_budget_words(end.config, end.state))
    _print_end(end.config, end.folder)
    return 0


def _budget_words(config: RunConfig, state: RunState) -> str:
    return (
        f"the budget of ε {config.privacy.epsilon:g} is spent ({guarantee(config.privacy, state.exposure)}): the run "
        f"ends after {counted(state.round, 'round')}, before one that would pass it"
    )


def _stopped_words(prepared: Prepared, state: RunState, stop: StopRequest) -> str:
    rounds = known_rounds(prepared.config)
    of = "" if rounds is None else f" of {rounds}"
    kept = f"round {state.round}{of} is kept in {checkpoint_folder(prepared.folder, state.round)}"
    if state.owed is not None:
        return f"stopped before an evaluation, which is made up for on resume; {kept}"
    if stop.abandoned:
        return f"stopped in round {state.round + 1}, which is abandoned; {kept}"
    return f"stopped after a round; {kept}"


def _print_totals(config: RunConfig, state: RunState) -> None:
    sent = f"{format_bytes(state.traffic.up)} up, {format_bytes(state.traffic.down)} down"
    spent = f"{format_quantity(state.compute)} MACs of forward passes on clients, failures"
    if config.privacy.withheld:
        spent = "failures before a client looked at its images:"
    stderr.print(f"trained {counted(state.round, 'round')}: {sent}, {spent} {dict(state.failures) or 'none'}")
    if config.compute is not None:
        _tell_of_compute(config.compute, state.compute)
    if config.privacy.clip:
        stderr.print(_privacy_words(config, state))


def _tell_of_compute(asked: str, spent: int) -> None:
    apart = spent / parse_quantity(asked) - 1
    if abs(apart) > EQUAL_COMPUTE:
        stderr.print(f"that is {apart:+.1%} of the {asked} MACs asked for: one step of every client is too much for it")


def _remember_places(prepared: Prepared) -> None:
    """Write the new place of a finished run's data, if they have moved; the other settings stay as they are."""
    written = read_run_config(prepared.folder)
    now = {name: path for name in PLACES if (path := named(prepared.config, name)) is not None}
    before = anchored(written)
    if any(path != named(before, name) for name, path in now.items() if name != "output"):
        write_config(prepared.folder / CONFIG, replaced(written, now))


def _privacy_words(config: RunConfig, state: RunState) -> str:
    found = guarantee(config.privacy, state.exposure)
    if found is None:
        return "updates were clipped without noise: that alone is no differential privacy"
    apart = begun_apart(config.init)
    return (
        f"the supernet is differentially private: {found} for each client{apart}; {coverage(config.privacy)}; "
        "not against the server, which sees every update"
    )


def _trackers(prepared: Prepared, always: Sequence[Tracker], stop: StopRequest) -> Trackers:
    tracking, folder, state = prepared.config.tracking, prepared.folder, prepared.checkpoint.state
    context = TrackerContext(folder, prepared.config, state.round)
    trackers = [*always, *(new_tracker(name, context) for name in tracking.also)]
    if tracking.wandb != "off":
        config = prepared.checkpoint.config
        described = (folder, folder.resolve().name, tracking.project, tracking.wandb, config, state.wandb_id)
        trackers.append(WandbTracker(*described, hurried=lambda: stop.at_once))
    if tracking.progress:
        rounds = known_rounds(prepared.config)
        trackers.append(TerminalProgress(rounds, prepared.config.clients.per_round, state.round))
    return Trackers(trackers)


def _description(prepared: Prepared) -> str:
    config, entries = prepared.config, prepared.cache.entries
    split = prepared.federation.split
    sizes = [size for size in split.sizes if size]
    images = "" if config.privacy.withheld else f"{min(sizes)} to {counted(max(sizes), 'image')}, "
    length = f"{config.compute} MACs of training in rounds"
    if config.compute is None:
        length = counted(config.rounds, "round")
    if config.spec.length is not None:
        length = config.spec.length(config, length)
    where = f"on {config.device}" if config.engine == "in-process" else f"over Flower at {config.flower.address}"
    return (
        f"{config.method}: {prepared.space.name} on {config.data.name} ({counted(len(split.classes), 'class')}), "
        f"{length} of {config.clients.per_round} from {counted(config.clients.count, 'client')} ({images}"
        f"{config.partition.scheme}), {counted(len(entries), 'cache entry')} of "
        f"{format_quantity(entries[0].macs)} to "
        f"{format_quantity(entries[-1].macs)} MACs, {where}; run: {prepared.folder}"
    )


def _print_end(config: RunConfig, folder: Path) -> None:
    config.spec.print_report(folder)
    evaluated = [record for record in read_records(folder / METRICS) if record["probes"]]
    if not evaluated:
        next_step(next_search(folder, format_at_least(middle_macs(folder))))
        return
    last = record_from_json(evaluated[-1])
    print_probes(last)
    next_step(next_search(folder, format_at_least(best_probe(last.probes, config.evaluation.metric).macs)))


def middle_macs(folder: Path) -> int:
    """Return the MACs of the middle entry of a run's cache, a budget that its space can use."""
    entries = read_cache_of_any_classes(folder / CACHE, load_space(str(folder / SPACE))).entries
    return entries[len(entries) // 2].macs


def best_probe(probes: Sequence[Probe], metric: Metric = "accuracy") -> Probe:
    """Return the probe of the highest accuracy, or other metric; among equal ones that of fewest MACs.

    Its size is one that the run has been seen to train well, so it is suggested for the search.
    """
    # Lines from before there were measures, of a run that is resumed, have accuracy alone.
    known: Metric = metric if all(probe.measures is not None for probe in probes) else "accuracy"
    return max(probes, key=lambda probe: (probe.value(known), -probe.macs))


def next_search(folder: Path, budget: str) -> str:
    """Return the command for a subnet of the run: one to search for, or the one that the run has found itself."""
    found = folder / ARCHITECTURE
    if is_file(found):
        return command("search-subnet", run=folder, architecture=found, checkpoint="newest", output="subnet")
    return command("search-subnet", run=folder, flops_budget=budget)
