"""Speed and memory of training: prints one table, with the machine and versions it was measured on.

Local training of a cache's smallest, middle and largest network beside a plain loop (eager, contiguous, fp32,
transforms image by image in a DataLoader), alternating in one process on the same images; whole rounds of the
command; aggregation; the server's memory; and a simulation of ever more clients.
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
from local_training import Ours, Plain, on_device
from memory import peak_memory, reset_peak
from results import Results
from rich.console import Console
from roofline import matmul_peak, share_of_peak
from runs import train, write_noise

from fedpareto.cache.build import compute_cache
from fedpareto.cache.cache_file import write_cache
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CACHE_ENTRIES, CacheEntry
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.genes import decode, largest_genes
from fedpareto.supernet.networks.weights import initial_tensors, views
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space
from fedpareto.training.aggregation.weighted_average import WeightedAverage
from fedpareto.training.clients.trainer import LocalRecipe
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.execution import ExecutionConfig
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.images import Normalisation
from fedpareto.training.engines.simulation.tuning import choose_profile
from fedpareto.training.execution.allocator import keep_freed_memory
from fedpareto.training.execution.profile import apply_to_torch
from fedpareto.training.runs.checkpoint import save_checkpoint
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import Counts, RunState

SPACES = ("mobilenet-cifar", "resnet-cifar")
BARS = {
    "mobilenet-cifar": {"smallest": "2.5x", "middle": "4x", "largest": "4.5x"},
    "resnet-cifar": {"smallest": "2x", "middle": "1x", "largest": "1x"},
}
AUGMENTATION = Augmentation(crop=4, flip=True)
NORMALISATION = Normalisation((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
#: A measured pass of the plain loop takes about this long, or is one batch.
PASS_SECONDS = 3.0
MEMORY_CLIENTS = (4, 64)
SIMULATED_CLIENTS = (100, 10_000)
SIMULATED_IMAGES = 30_000
FIXED_PROFILE = {
    "--precision": "fp32", "--execution.memory-format": "channels_last", "--execution.fused": "true",
    "--execution.graphs": "false", "--execution.kernels": "torch", "--execution.workers": 1,
}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--repeats", type=int, default=2, help="passes of each kind; the fastest counts")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--server-memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server_memory:
        print(json.dumps(server_memory(options.server_memory)))
        return
    device = torch.device(options.device)
    keep_freed_memory()
    table = Results("fedpareto", "torch", "torchvision")
    if device.type == "cpu":
        # Before this process is large: what Linux tells of a child's memory counts the parent it was forked from.
        simulation(table)
        memory(table)
        rounds(table)
    for name in SPACES:
        space = load_space(name)
        entries = compute_cache(space, space.fitness, Limits(), CACHE_ENTRIES).entries
        local_training(table, space, entries, device, options.repeats)
        if name == "resnet-cifar":
            aggregation(table, space, entries, device)
    Console(width=150).print(table)


def local_training(
    table: Results, space: SearchSpace, entries: tuple[CacheEntry, ...], device: torch.device, repeats: int
) -> None:
    """Add a row for the smallest, middle and largest entry."""
    recipe = LocalRecipe(space, ClientConfig(epochs=1), AUGMENTATION, NORMALISATION)
    profile = choose_profile("auto", ExecutionConfig(), recipe, entries, device, SILENT).profile
    apply_to_torch(profile)
    peak = matmul_peak(profile, device)
    table.add(f"{space.name}: profile", f"{profile}; a large matrix product: {peak / 1e9:,.0f} GFLOP/s", "")
    tensors = on_device(initial_tensors(space, torch.Generator().manual_seed(0)), device, profile)
    chosen = {"smallest": entries[0], "middle": entries[len(entries) // 2], "largest": entries[-1]}
    for label, entry in chosen.items():
        plain = Plain(entry, recipe, device)
        steps = max(1, int(PASS_SECONDS * plain.rate(1) / recipe.config.batch))
        ours = Ours(entry, recipe, profile, tensors, steps)
        # Networks are built, and graphs recorded, once in thousands of rounds.
        ours.run()
        rates, passes = [], []
        for _ in range(repeats):
            rates.append(plain.rate(steps))
            passes.append(ours.run())
        best = max(passes, key=lambda one: one.rate)
        share = share_of_peak(best.rate, entry.macs, peak)
        table.add(
            f"{space.name}, {label} ({format_quantity(entry.macs)} MACs): images/s",
            f"{best.rate:,.1f} beside {max(rates):,.1f}: {best.rate / max(rates):.2f}x; {best.outside:.1%} not SGD; "
            f"{share:.0%} of the product's FLOP/s; {best.peak / 1e6:,.0f} MB at most",
            "5x" if device.type == "cuda" else BARS[space.name][label],
        )


def aggregation(table: Results, space: SearchSpace, entries: tuple[CacheEntry, ...], device: torch.device) -> None:
    """Add the row of one round's aggregation: the smallest, the largest and six drawn entries."""
    tensors = {
        name: tensor.to(device).to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor.to(device)
        for name, tensor in initial_tensors(space, torch.Generator().manual_seed(0)).items()
    }
    drawn = np.random.default_rng(0).integers(len(entries), size=6)
    chosen = sorted([entries[0], entries[-1], *(entries[i] for i in drawn)], key=lambda entry: -entry.macs)
    updates = [
        {name: view.clone() for name, view in views(space, tensors, entry.architecture).items()} for entry in chosen
    ]
    fold, best = WeightedAverage(space, tensors), float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for entry, update in zip(chosen, updates, strict=True):
            fold.add(entry.architecture, update, 1 / 8)
        fold.write_mean(tensors)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    params = sum(entry.params for entry in chosen)
    table.add(f"aggregation of 8 clients, {space.name} ({format_quantity(params)} values)", f"{best:.2f} s", "0.3 s")


def rounds(table: Results) -> None:
    """Add a row for rounds of the command in both spaces: the first, which builds its networks, and the others."""
    for name, images in (("mobilenet-cifar", 256), ("resnet-cifar", 128)):
        with tempfile.TemporaryDirectory() as folder:
            write_noise(Path(folder) / "images", 4 * images * 10 // 8, 32)
            options = {"--clients.count": 4, "--clients.per-round": 4, "--client.batch-size": 64, "--rounds": 4}
            records = train(Path(folder), "run", name, options).records
        first, others = _outside(records[:1]), _outside(records[1:])
        table.add(
            f"round outside SGD, {name}, 4 clients x {images} images x 1 epoch",
            f"{others}; in the first, {first}",
            "3 %",
        )


def _outside(records: list[dict[str, Any]]) -> str:
    """Return the share of rounds that is not SGD, in words."""
    seconds = sum(record["seconds"] for record in records)
    outside = seconds - sum(record["sgd_seconds"] for record in records)
    return f"{outside / seconds:.1%} ({outside:.2f} s of {seconds:.1f} s)"


def memory(table: Results) -> None:
    """Add the rows of the server's memory, each from a process of its own."""
    for clients in MEMORY_CLIENTS:
        command = [sys.executable, __file__, "--server-memory", str(clients)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        table.add(
            f"server memory, mobilenet-cifar, {clients} clients and a checkpoint",
            f"{result['peak'] / result['supernet']:.2f}x the supernet's {result['supernet'] / 1e6:.1f} MB",
            "3x",
        )


def server_memory(clients: int) -> dict[str, int]:
    """Return the supernet's bytes and the server's peak above its start, over one round of ``clients``.

    Every client sends the largest network, while a checkpoint is written. The memory the clients train in is
    theirs, not the server's.
    """
    space = load_space("mobilenet-cifar")
    architecture = decode(space, largest_genes(space))
    # Nothing is freed before the start, so that nothing is used again unseen.
    update = {name: torch.ones(shape) for name, shape in tensor_shapes(space, architecture).items()}
    start = reset_peak(torch.device("cpu"))
    tensors = {
        name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in initial_tensors(space, torch.Generator().manual_seed(0)).items()
    }
    fold = WeightedAverage(space, tensors)
    for _ in range(clients):
        fold.add(architecture, update, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), RunState(1, Counts.zero(1), (1,)), {}, Models(tensors))
    fold.write_mean(tensors)
    peak = peak_memory(torch.device("cpu")) - start
    return {"peak": peak, "supernet": sum(tensor.nbytes for tensor in tensors.values())}


def simulation(table: Results) -> None:
    """Add a row for every number of registered clients: 100 a round on the same images."""
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder) / "images", SIMULATED_IMAGES, 16)
        space, cache = load_space("mobilenet-tiny").adapted(classes=2), Path(folder) / "cache.jsonl"
        write_cache(cache, compute_cache(space, space.fitness, Limits(), CACHE_ENTRIES))
        for clients in SIMULATED_CLIENTS:
            # However few images a client holds, it takes one step.
            batch = SIMULATED_IMAGES * 8 // 10 // clients
            options = {
                "--cache": cache, "--clients.count": clients, "--clients.per-round": 100,
                "--client.batch-size": batch, "--rounds": 1, **FIXED_PROFILE,
            }  # fmt: skip
            run = train(Path(folder), f"run-{clients}", "mobilenet-tiny", options)
            training = sum(record["seconds"] + record["evaluation_seconds"] for record in run.records)
            table.add(
                f"simulation of {clients:,} clients, 100 a round",
                f"{run.seconds - training:.1f} s beside the rounds, with reading {SIMULATED_IMAGES:,} images; "
                f"{run.peak / 1e6:,.0f} MB at most",
                "10 s, constant memory",
            )


if __name__ == "__main__":
    main()
