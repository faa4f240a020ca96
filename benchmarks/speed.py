"""Speed and memory of the main job: prints one table, with the machine and versions it was measured on.

Rows: vectorised fitness (beside one architecture at a time), the share of a round that is not the clients'
SGD, and the server's peak memory for more and more clients. Ratios are taken within one run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from results import results
from rich.console import Console

from fitness.score import score
from supernet.genes import decode, largest_genes, random_genes
from supernet.space import SearchSpace, load_space
from supernet.weights import extract, initial_tensors
from training.aggregation import Fold

SPACES = ("mobilenet-cifar", "mobilenet-tiny")
SCORED = ("resnet-cifar", *SPACES)
CLIENTS = (4, 16, 64)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256, help="images of each client in the measured rounds")
    parser.add_argument("--rounds", type=int, default=3, help="rounds measured")
    parser.add_argument("--server-memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server_memory:
        print(json.dumps(server_memory(options.server_memory)))
        return
    table = results("fedpareto", "torch", "numpy")
    for name in SCORED:
        vectorised, single = fitness_rates(load_space(name))
        table.add_row(
            f"cost + fitness, {name}, one core",
            f"{vectorised:,.0f} architectures/s, {vectorised / single:,.0f}x one at a time ({single:,.0f}/s)",
            "300,000/s (on resnet-cifar)",
        )
    for name in SPACES:
        overhead, total, share = round_overhead(name, options.images, options.rounds)
        table.add_row(
            f"round outside SGD, {name}, 4 clients x {options.images} images",
            f"{share:.1%} ({overhead:.2f} s of {total:.2f} s)",
            "5 %",
        )
    for clients in CLIENTS:
        command = [sys.executable, __file__, "--server-memory", str(clients)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        table.add_row(
            f"server memory, mobilenet-cifar, {clients} clients",
            f"{result['peak'] / result['supernet']:.2f}x the supernet's {result['supernet'] / 1e6:.1f} MB",
            "4x",
        )
    Console(width=130).print(table)


def fitness_rates(space: SearchSpace, count: int = 40_000) -> tuple[float, float]:
    """Return architectures a second, all at once and one at a time."""
    genes = random_genes(space, count, np.random.default_rng(0))
    score(space, genes[:1000])
    alone = genes[:200]
    best_vectorised, best_single = 0.0, 0.0
    for _ in range(3):
        started = time.perf_counter()
        score(space, genes)
        best_vectorised = max(best_vectorised, count / (time.perf_counter() - started))
        started = time.perf_counter()
        for vector in alone:
            score(space, vector)
        best_single = max(best_single, len(alone) / (time.perf_counter() - started))
    return best_vectorised, best_single


def round_overhead(name: str, images: int, rounds: int) -> tuple[float, float, float]:
    """Return seconds outside SGD, seconds in all, and their ratio, over rounds of a real run on noise."""
    with tempfile.TemporaryDirectory() as folder:
        records = _train_on_noise(Path(folder), name, images, rounds)
    total = sum(record["seconds"] for record in records)
    overhead = total - sum(record["sgd_seconds"] for record in records)
    return overhead, total, overhead / total


def _train_on_noise(folder: Path, name: str, images: int, rounds: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    side = load_space(name).resolutions[-1]
    for split, count in (("train", 4 * images // 2 * 10 // 8), ("test", 2)):
        for label in ("a", "b"):
            target = folder / "images" / split / label
            target.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(256, size=(side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(target / f"{index:05d}.png", compress_level=0)
    script = str(Path(sys.executable).with_name("train-supernet"))
    options = {
        "--space": name, "--output": folder / "run", "--data.name": "imagefolder", "--data.root": folder / "images",
        "--rounds": rounds, "--clients.count": 4, "--clients.per-round": 4, "--partition.scheme": "iid",
        "--client.epochs": 1, "--client.batch-size": 64, "--evaluation.every": rounds, "--tracking.wandb": "off",
    }  # fmt: skip
    command = [script, *(str(part) for pair in options.items() for part in pair)]
    subprocess.run(command, check=True, capture_output=True)
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def server_memory(clients: int) -> dict[str, int]:
    """Return the supernet's bytes and the server's peak above its start, over one round of ``clients``.

    Every client sends the largest network, one after another, as the in-process engine does.
    """
    space = load_space("mobilenet-cifar")
    architecture = decode(space, largest_genes(space))
    torch.zeros(1 << 20).add_(1)
    start = _memory("VmRSS")
    tensors = initial_tensors(space, torch.Generator().manual_seed(0))
    Path("/proc/self/clear_refs").write_text("5")
    fold = Fold(space, tensors)
    for _ in range(clients):
        fold.add(architecture, extract(space, tensors, architecture), 1.0)
    fold.merge_into(tensors)
    return {"peak": _memory("VmHWM") - start, "supernet": sum(tensor.nbytes for tensor in tensors.values())}


def _memory(field: str) -> int:
    """Return a field of this process's status in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
