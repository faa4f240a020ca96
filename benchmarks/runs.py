"""Short runs of ``train-supernet`` on noise, in processes of their own."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class MeasuredRun:
    """The lines of a run's metrics, its wall time in seconds, and the most bytes it had in memory."""

    records: list[dict[str, Any]]
    seconds: float
    peak: int


def write_noise(folder: Path, count: int, side: int) -> None:
    """Write ``count`` training images of two classes, and a few test images, as an image folder."""
    generator = np.random.default_rng(0)
    for split, images in (("train", count // 2), ("test", 2)):
        for label in ("a", "b"):
            target = folder / split / label
            target.mkdir(parents=True)
            for index in range(images):
                pixels = generator.integers(256, size=(side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(target / f"{index:05d}.png", compress_level=0)


def train(folder: Path, output: str, space: str, options: Mapping[str, object]) -> MeasuredRun:
    """Train one epoch a round on ``folder/images``, evaluating after the last round only."""
    fixed = {
        "--space": space, "--output": folder / output, "--data.name": "imagefolder",
        "--data.root": folder / "images", "--partition.scheme": "iid", "--client.epochs": 1,
        "--evaluation.every": options["--rounds"], "--evaluation.probes": 2,
        "--evaluation.calibration-images": 64, "--tracking.wandb": "off",
    }  # fmt: skip
    script = str(Path(sys.executable).with_name("train-supernet"))
    command = [script, *(str(part) for pair in {**fixed, **options}.items() for part in pair)]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        # Waits as Popen would, and tells the most memory of this one process (kilobytes on Linux).
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(errors.read().decode())
    seconds = time.perf_counter() - started
    records = [json.loads(line) for line in (folder / output / "metrics.jsonl").read_text().splitlines()]
    return MeasuredRun(records, seconds, usage.ru_maxrss * 1024)
