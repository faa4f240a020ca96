"""Checkpoint writer: writes checkpoints in the background, while the next round trains."""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

from fedpareto.training.runs.checkpoint import prune_checkpoints, save_checkpoint
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.signing import CheckpointSigner
from fedpareto.training.runs.state import RunState
from fedpareto.training.trackers.protocol import Tracker


class _Started(NamedTuple):
    folder: Future[Path]
    aliases: Sequence[str]


class CheckpointWriter:
    """Writer of one checkpoint at a time, on a thread of its own; leaving its context waits for the last one.

    Tensors are read while they are written: they may change only after ``finish``.

    Args:
        run: folder of the run.
        config: the run's configuration as plain values.
        keep: number of newest checkpoints that are kept; the best is kept too.
        tracker: tracker that is told of the best and the final checkpoint.
        signer: signs each checkpoint; None to sign none.
    """

    def __init__(
        self,
        run: Path,
        config: Mapping[str, Any],
        keep: int,
        tracker: Tracker,
        signer: CheckpointSigner | None = None,
    ) -> None:
        self._run, self._config, self._keep, self._tracker, self._signer = run, config, keep, tracker, signer
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._started: _Started | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._pool.shutdown()
        if error is None:
            self.finish()

    def start(self, state: RunState, models: Models, aliases: Sequence[str]) -> None:
        """Begin to write the checkpoint of ``state.round``, which the tracker knows by its ``aliases``, too."""
        # Branches come and go in the dictionary itself.
        now = dataclasses.replace(models, branches=dict(models.branches))
        written = self._pool.submit(self._write, state, now)
        self._started = _Started(written, aliases)

    def finish(self) -> None:
        """Wait until the checkpoint that was started is written.

        Raises:
            CheckpointError: it cannot be written.
        """
        if self._started is None:
            return
        (folder, aliases), self._started = self._started, None
        written = folder.result()
        if aliases:
            self._tracker.checkpoint(written, aliases)

    def _write(self, state: RunState, models: Models) -> Path:
        folder = save_checkpoint(self._run, state, self._config, models, self._signer)
        prune_checkpoints(self._run, self._keep, state.best)
        return folder
