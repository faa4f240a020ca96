"""Tracker that mirrors a run on Weights & Biases: online with a login, offline without.

All of wandb runs in a process of its own (``wandb_mirror.py``). That process is told of events, and the run waits for
it only at the end, and then not for long.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.console import stderr
from fedpareto.supernet.common.terminal.words import command, option
from fedpareto.training.engines.protocol import never
from fedpareto.training.trackers.records import LostRound, RoundRecord

Mode = Literal["auto", "online", "offline"]

#: Values of wandb's own variable.
_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")

_PROGRAM = "from fedpareto.training.trackers.wandb_mirror import main; main()"

#: Exit code of a look for a login that found none; that of ``wandb_mirror``, which is not imported here.
_NO_LOGIN = 3

#: Seconds that a run waits at its end for what wandb has not sent yet, and those when it has to end at once.
_PATIENCE, _HURRY = 20.0, 2.0

#: Seconds in which the last words of a mirror that has ended are read.
_LAST_WORDS = 1.0

#: Seconds that a look for a login may take; most of it is the import of wandb.
_LOOK = 60.0


def check_environment(mode: str) -> None:
    """Refuse a ``WANDB_MODE`` that wandb does not know, before anything is written.

    Raises:
        UserError: it is unknown; the message names it and the allowed values.
    """
    given = os.environ.get("WANDB_MODE")
    if mode != "off" and given is not None and given not in _MODES:
        raise UserError(
            f"WANDB_MODE is {given!r}; wandb knows: {', '.join(_MODES)}; set one of them, or unset the variable"
        )


def require_login(mode: str) -> None:
    """Refuse ``online`` without a login, before anything is written.

    Raises:
        UserError: there is no login.
    """
    if mode != "online":
        return
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    try:
        found = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", _PROGRAM, "login"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LOOK,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        # Whatever it hangs on, the mirror will say.
        return
    if found == _NO_LOGIN:
        raise UserError(
            "tracking.wandb is online and there is no login to wandb; log in with: wandb login, or set WANDB_API_KEY, "
            f"or use {option('tracking.wandb')} auto, offline or off"
        )


class WandbTracker:
    """Tracker that logs curves, histograms, the Pareto plot and checkpoints of a run.

    Args:
        folder: the run's folder; wandb keeps its files in ``wandb/`` there.
        name: name of the run on the dashboard.
        project: wandb project.
        mode: ``auto`` is online with a login and offline without.
        config: the run's configuration.
        run_id: id of the wandb run, so that a resumed run goes on in it.
        hurried: function that returns True if the run has to end at once.
        patience: most seconds that ``close`` waits for data that are not sent yet.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        project: str,
        mode: Mode,
        config: Mapping[str, Any],
        run_id: str | None,
        *,
        hurried: Callable[[], bool] = never,
        patience: float = _PATIENCE,
    ) -> None:
        self._folder, self._hurried, self._patience = folder, hurried, patience
        self._mode: str | None = None
        self._mode_known, self._closing, self._remarked = threading.Event(), False, False
        process = self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the command alone, which finishes the mirror when it ends.
            start_new_session=True,
        )
        if process.stdin is None or process.stdout is None:
            raise TypeError("a process without pipes")
        self._events: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, args=(process.stdout,), name="wandb", daemon=True)
        self._listener.start()
        threading.Thread(target=self._send, args=(process.stdin,), name="wandb", daemon=True).start()
        start = {"folder": str(folder), "name": name, "project": project, "mode": mode, "id": run_id}
        self._events.put({**start, "config": dict(config)})

    @property
    def mode(self) -> str | None:
        """Mode of the mirror, online or offline, once that is known; None if the run is not mirrored."""
        self._mode_known.wait()
        return self._mode

    def client_done(self, round_number: int, done: int, clients: int) -> None:
        """Do nothing, as the dashboard shows rounds."""

    def round_done(self, record: RoundRecord) -> None:
        """Log the round's curves, and the Pareto plot when it was evaluated; not before an evaluation that is owed."""
        if record.owed:
            return
        probes = [[probe.macs, probe.params, probe.accuracy] for probe in record.probes]
        event = {"do": "log", "step": record.round, "values": _curves(record), "trained": record.trained}
        self._events.put({**event, "probes": probes})

    def round_lost(self, record: LostRound) -> None:
        """Do nothing, as a step of the dashboard is a merged round."""

    def checkpoint(self, folder: Path, aliases: Sequence[str]) -> None:
        """Log the checkpoint as an artifact."""
        self._events.put({"do": "checkpoint", "folder": str(folder), "aliases": list(aliases)})

    def close(self) -> None:
        """Finish the wandb run, within a time limit, and tell the user how to upload data that were not sent."""
        self._closing = True
        self._events.put({"do": "finish"})
        self._events.put(None)
        started, late = time.monotonic(), False
        while self._process.poll() is None and not late:
            time.sleep(0.02)
            late = time.monotonic() - started > (_HURRY if self._hurried() else self._patience)
        self._kill()
        if late:
            self._remark(f"wandb has not sent all in time; send the rest with: {self._sync()}/*run-*")
            return
        # Why it has ended may still be in the pipe.
        self._listener.join(_LAST_WORDS)
        if self._process.returncode:
            self._remark("wandb has ended by itself; the run goes on without it")
        elif self._mode == "offline":
            stderr.print(f"wandb ran offline; upload it with: {self._sync()}/offline-run-*")

    def _sync(self) -> str:
        return command("wandb", "sync", self._folder / "wandb")

    def _kill(self) -> None:
        try:
            # It leads a group of its own; wandb's service ends when it does.
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self._process.wait()

    def _send(self, pipe: IO[bytes]) -> None:
        """Pass events on; a mirror that does not read keeps only this thread waiting."""
        try:
            while (event := self._events.get()) is not None:
                pipe.write(json.dumps(event).encode() + b"\n")
                pipe.flush()
            pipe.close()
        except OSError:
            # It has ended: whoever listens to it has said so.
            return

    def _listen(self, pipe: IO[bytes]) -> None:
        """Take note of the mirror's messages, until it ends."""
        for line in pipe:
            words = json.loads(line)
            if "mode" in words:
                self._mode = words["mode"]
                self._mode_known.set()
            if "remark" in words:
                self._remark(words["remark"])
        self._mode_known.set()
        # Else ``close`` says so.
        if not self._closing:
            self._remark("wandb has ended by itself; the run goes on without it")

    def _remark(self, words: str) -> None:
        if not self._remarked:
            self._remarked = True
            stderr.print(f"{words}; metrics.jsonl has all rounds")


def _curves(record: RoundRecord) -> dict[str, Any]:
    """Return the numbers of a round by the names of their curves."""
    values: dict[str, Any] = {
        "train/lr": record.lr,
        "bytes/up": record.traffic.up,
        "bytes/down": record.traffic.down,
        "bytes/whole_supernets": record.bytes_whole,
        "failures": sum(record.failures.values()) + len(record.evaluation_failures),
    }
    optional = {
        "train/loss": record.train_loss,
        "compute/client_macs": record.compute or None,
        "time/round_seconds": record.seconds,
        "time/overhead_share": record.overhead_share,
        "train/beta": record.beta,
        "privacy/epsilon": record.epsilon,
        "privacy/clipped_share": record.clipped,
        **{f"search/{name}": accuracy for name, accuracy in record.tested.items()},
    }
    values |= {name: value for name, value in optional.items() if value is not None}
    if record.probes:
        values["time/evaluation_seconds"] = record.evaluation_seconds
        values["bytes/evaluation_up"] = record.evaluation_traffic.up
        values["bytes/evaluation_down"] = record.evaluation_traffic.down
        values["validation/mean_accuracy"] = record.mean_accuracy
        for probe in record.probes:
            for name, value in {"accuracy": probe.accuracy, **probe.further}.items():
                values[f"validation/{name}_at_{format_quantity(probe.macs)}"] = value
    return values
