"""Decoders: worker processes that a batch of image files is shared among."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.data.files.preparation import Pixels, Preparation
from fedpareto.training.data.images import DataError

_MODULE = "fedpareto.training.data.stores.decoding_worker"

#: Seconds that a worker whose input has ended may take to end.
_PATIENCE = 5

Worker = subprocess.Popen[bytes]


class Decoders:
    """Worker processes that decode files; they start with the first batch and end with this object.

    Args:
        preparation: form of all images.
        count: number of processes.
    """

    def __init__(self, preparation: Preparation, count: int) -> None:
        self._preparation, self._count = preparation, count
        # A place without a process gets one when it is first needed.
        self._idle: SimpleQueue[Worker | None] = SimpleQueue()
        for _ in range(count):
            self._idle.put(None)
        self._started: list[Worker] = []
        self._threads = ThreadPoolExecutor(count, "decoder")
        weakref.finalize(self, _end, self._started)

    def read(self, paths: Sequence[Path]) -> Tensor:
        """Return the pixels of files, (n, channels, side, side) uint8; several threads may ask at once.

        Raises:
            DataError: one cannot be decoded; the message names the first that cannot.
            UserError: a worker process ended.
        """
        side, channels = self._preparation.side, self._preparation.channels
        pixels = np.empty((len(paths), channels, side, side), dtype=np.uint8)
        shares = [part for part in np.array_split(np.arange(len(paths)), self._count) if len(part)]

        def fill(share: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> None:
            first, last = int(share[0]), int(share[-1]) + 1
            self._fill(paths[first:last], pixels[first:last])

        for _ in self._threads.map(fill, shares):
            pass
        return torch.from_numpy(pixels)

    def _fill(self, paths: Sequence[Path], pixels: Pixels) -> None:
        with self._worker() as worker:
            source, sink = _pipes(worker)
            try:
                request = {"paths": list(map(os.fspath, paths)), "preparation": dataclasses.asdict(self._preparation)}
                sink.write(json.dumps(request).encode() + b"\n")
                sink.flush()
                line = source.readline()
                failed = json.loads(line)["failed"] if line else None
                received = 0 if failed else _received(source, pixels)
            except OSError:
                line, failed, received = b"", None, 0
            if not failed and (not line or received != pixels.nbytes):
                worker.kill()
                raise UserError(
                    f"a process that decodes images ended by itself (status {worker.wait()}); is there enough memory? "
                    "fewer processes take less: lower data.decoders"
                )
        if failed:
            position, reason = failed
            raise DataError(f"cannot decode {paths[position]}: {reason}; repair or remove it")

    @contextlib.contextmanager
    def _worker(self) -> Iterator[Worker]:
        worker = self._idle.get()
        try:
            if worker is None or worker.poll() is not None:
                worker = _start()
                self._started.append(worker)
            yield worker
        finally:
            self._idle.put(worker)


def _start() -> Worker:
    # One thread each: a core decodes, and another process has the next.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # noqa: S603 - this program's own module
        [sys.executable, "-P", "-m", _MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )


def _pipes(worker: Worker) -> tuple[IO[bytes], IO[bytes]]:
    if worker.stdout is None or worker.stdin is None:
        raise ValueError("a worker is started with pipes")
    return worker.stdout, worker.stdin


def _received(source: IO[bytes], pixels: Pixels) -> int:
    """Number of bytes that came: all, unless the worker ended."""
    room, there = pixels.reshape(-1).data, 0
    while there < len(room):
        piece = source.readinto(room[there:])  # type: ignore[attr-defined]
        if not piece:
            break
        there += piece
    return there


def _end(started: Sequence[Worker]) -> None:
    for worker in started:
        source, sink = _pipes(worker)
        # One that ended before takes nothing any more.
        with contextlib.suppress(OSError):
            sink.close()
        source.close()
    for worker in started:
        try:
            worker.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
