"""Checkpoints of a run's rounds: when they are due, and the files that are written with them."""

from typing import Self

from fedpareto.supernet.common.storage.files import write_recorded
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.training.rounds.budget import run_ends
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.checkpoint import checkpoint_folder, save_checkpoint
from fedpareto.training.runs.checkpoint_writer import CheckpointWriter
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import RunState


class RoundCheckpoints:
    """Checkpoints of a run's rounds, written while the next one trains; leaving the context waits for the last one.

    Args:
        run: parts of the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        keep = run.config.checkpoint.keep
        self._writer = CheckpointWriter(run.folder, run.config_mapping, keep, run.tracker, run.signer)

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._writer.__exit__(kind, error, traceback)

    def start(self, state: RunState, models: Models, *, wanted: bool) -> None:
        """Begin to write the checkpoint of the round of ``state``, if it is due or ``wanted``.

        It reads the models until ``finish`` is called.
        """
        run, config = self._run, self._run.config
        last = run_ends(config, run.method, run.ledger, state)
        best = state.best is not None and state.best.round == state.round
        if last or wanted or best or state.round % config.checkpoint.every == 0:
            self._write_files(state)
            aliases = [name for name, yes in (("best", best), ("final", last and state.owed is None)) if yes]
            self._writer.start(state, models, aliases)

    def finish(self) -> None:
        """Wait until the checkpoint that was started is written.

        Raises:
            CheckpointError: it cannot be written.
        """
        self._writer.finish()

    def has(self, state: RunState) -> bool:
        """Return True if the round of ``state`` has a checkpoint."""
        return exists(checkpoint_folder(self._run.folder, state.round))

    def keep(self, state: RunState, models: Models) -> str:
        """Make sure that the round of ``state`` has a checkpoint; return words that name its folder.

        Raises:
            CheckpointError: it cannot be written.
        """
        folder = checkpoint_folder(self._run.folder, state.round)
        if not self.has(state):
            self._write_files(state)
            save_checkpoint(self._run.folder, state, self._run.config_mapping, models, self._run.signer)
        return f"round {state.round} is kept in {folder}"

    def _write_files(self, state: RunState) -> None:
        """Write the method's own files before the checkpoint, so that a finished run always has them."""
        for name, text in self._run.method.files(state).items():
            write_recorded(self._run.folder / name, text)
