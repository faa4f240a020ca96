"""Runner of a study's trials: processes of ``train-supernet``, several at a time, resumable."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.search.comparison.studies.study import Trial
from fedpareto.supernet.architecture_file import architecture_text, read_architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, read_yaml_mapping
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.supernet.common.storage.files import read_text, write_text
from fedpareto.supernet.common.storage.path_checks import exists, reaching
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.config.methods.config_type import config_type
from fedpareto.training.config.rules.changes import with_former_statistics
from fedpareto.training.config.rules.unused_settings import read_only
from fedpareto.training.config.run import RunConfig, config_to_mapping, write_config
from fedpareto.training.runs.folder import CONFIG, METRICS
from fedpareto.training.trackers.metrics_file import last_share

#: Seconds between two looks at the processes.
_PAUSE = 0.5

#: Seconds that trials have to end in; fewer than this command has itself.
_PATIENCE = 5.0

_PROGRAM = "from fedpareto.training.cli import main; main()"

#: Program of a linear trial, in place of a training run.
_LINEAR_PROGRAM = "from fedpareto.search.comparison.linear import main; main()"

#: Settings that may change when a trial is resumed, besides the folder of its images.
_FREE = {"output": None, "tracking": None}


class Trials:
    """Runner of trials, each in a folder of its name.

    Args:
        folder: folder of all trials.
        jobs: processes at a time.
        listener: told of their progress.
    """

    def __init__(self, folder: Path, jobs: int, listener: ProgressListener) -> None:
        self._folder, self._jobs, self._listener = folder, jobs, listener

    def run(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Path]]:
        """Yield every trial with its run's folder as soon as it is finished, in no particular order.

        Raises:
            UserError: a trial failed, or its folder holds another run.
            KeyboardInterrupt: all processes have ended, with checkpoints, and go on when run again.
        """
        with reaching(self._folder, "write"):
            self._folder.mkdir(parents=True, exist_ok=True)
        waiting, running = list(trials), dict[Trial, subprocess.Popen[bytes]]()
        finished: list[Trial] = []
        with self._stopped_at_the_end(running):
            while waiting or running:
                while waiting and len(running) < self._jobs:
                    trial = waiting.pop(0)
                    running[trial] = self._start(trial)
                for trial in [trial for trial, process in running.items() if process.poll() is not None]:
                    code = running.pop(trial).returncode
                    if code:
                        raise UserError(f"{trial.name} failed: {self._last_words(trial)}")
                    finished.append(trial)
                    yield trial, self._run_of(trial)
                self._report(trials, finished)
                if running:
                    time.sleep(_PAUSE)

    def _start(self, trial: Trial) -> subprocess.Popen[bytes]:
        """Start or resume a trial; one that is finished ends at once."""
        run = self._run_of(trial)
        if exists(run / CONFIG):
            check_same(trial, self._folder)
            arguments = ["--resume", str(run), "--data.root", trial.config.data.root]
        else:
            arguments = ["--config", str(self._written(trial)), "--output", str(run), *self._network_of(trial)]
        command = [sys.executable, "-c", _LINEAR_PROGRAM if _is_linear(trial) else _PROGRAM, *arguments]
        with (self._folder / f"{trial.name}.log").open("ab") as log:
            # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
            return subprocess.Popen(  # noqa: S603 - our own program
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def _written(self, trial: Trial) -> Path:
        """Write the configuration of a trial; return its file."""
        config = written(self._folder, trial)
        write_config(config, trial.config)
        return config

    def _network_of(self, trial: Trial) -> list[str]:
        """Write the network of a trial that trains a given one; return the options that name it."""
        if trial.network is None:
            return []
        path = _network_file(self._folder, trial)
        write_text(path, architecture_text(trial.network))
        return [f"--{trial.config.method}.architecture", str(path)]

    def _report(self, trials: Sequence[Trial], finished: Sequence[Trial]) -> None:
        shares = [1.0 if trial in finished else share_done(self._run_of(trial)) for trial in trials]
        words = f"{len(finished)} of {counted(len(trials), 'run')} finished, in percent"
        self._listener.report(words, round(100 * share_of_all(trials, shares)), 100)

    def _run_of(self, trial: Trial) -> Path:
        return self._folder / trial.name

    def _last_words(self, trial: Trial) -> str:
        log = self._folder / f"{trial.name}.log"
        lines = [line.strip() for line in read_text(log).splitlines() if line.strip()]
        return f"{lines[-1] if lines else 'it said nothing'} (log: {log})"

    @contextlib.contextmanager
    def _stopped_at_the_end(self, running: Mapping[Trial, "subprocess.Popen[bytes]"]) -> Iterator[None]:
        """End all processes if the block ends early; they abandon the rounds they are in."""
        try:
            yield
        finally:
            for process in running.values():
                process.terminate()
            end = time.monotonic() + _PATIENCE
            for process in running.values():
                try:
                    process.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    # Its last checkpoint is whole, whenever it ends.
                    process.kill()
                    process.wait()


def written(folder: Path, trial: Trial) -> Path:
    """Return the file of a trial's configuration, in the ``folder`` of all trials."""
    return folder / f"{trial.name}.yaml"


def check_same(trial: Trial, folder: Path) -> None:
    """Refuse a run that was started with other settings than its trial has now; its images may have moved.

    Args:
        trial: the trial in the study as it is now.
        folder: folder of all trials.

    Raises:
        UserError: naming the run.
    """
    config, network = written(folder, trial), _network_file(folder, trial)
    same = exists(config) and _asked(config) == _compared(trial.config)
    if same and trial.network is not None:
        same = exists(network) and read_architecture(network) == trial.network
    if not same:
        raise UserError(
            f"{folder / trial.name} was trained with other settings than the study has now; restore them, or name "
            f"another {option('output')}"
        )


def _network_file(folder: Path, trial: Trial) -> Path:
    return folder / f"{trial.name}.json"


def _is_linear(trial: Trial) -> bool:
    return trial.yardstick is not None and trial.yardstick.kind == "linear"


def share_done(run: Path) -> float:
    """Return the share of a run's training that is done, from its metrics; 0 before its first round."""
    return last_share(run / METRICS)


def share_of_all(trials: Sequence[Trial], shares: Sequence[float]) -> float:
    """Return the share of all training that is done, from 0 to 1, given the share of every trial.

    A trial counts by its compute or, where the study gives none yet, its rounds; a linear model takes no time.
    """
    sizes = [0 if _is_linear(trial) else _size(trial.config) for trial in trials]
    return sum(share * size for share, size in zip(shares, sizes, strict=True)) / max(1, sum(sizes))


def _size(config: RunConfig) -> int:
    return config.rounds if config.compute is None else parse_quantity(config.compute)


def _asked(config: Path) -> dict[str, Any]:
    mapping = read_yaml_mapping(config)
    asked = from_mapping(config_type(), mapping, str(config))
    return _compared(read_only(with_former_statistics(asked, mapping)))


def _compared(config: RunConfig) -> dict[str, Any]:
    fields = config_to_mapping(config)
    return fields | _FREE | {"data": {**fields["data"], "root": None}}
