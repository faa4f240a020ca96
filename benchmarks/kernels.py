"""Numba's kernels beside torch's, both in fp32 with the channels last on one thread: prints one table.

Whole local steps of a cache's smallest, middle and largest network, and of one of 2 M MACs of the small study; then
every layer of the smallest and the largest network of four spaces by itself, forward and backward. The two ways
alternate in one process, and the fastest of several passes counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from local_training import noise
from results import Results
from rich.console import Console
from torch import Tensor, nn

from fedpareto.cache.build import compute_cache
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CACHE_ENTRIES, CacheEntry
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.genes import decode, largest_genes, smallest_genes
from fedpareto.supernet.networks.network import ConvLayer, build_network
from fedpareto.supernet.networks.weights import extract, initial_tensors
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.trainer import LocalRecipe, LocalTrainer
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.images import Normalisation
from fedpareto.training.execution.allocator import keep_freed_memory
from fedpareto.training.execution.profile import Profile
from fedpareto.training.kernels.available import unavailable
from fedpareto.training.messages import Task

if TYPE_CHECKING:
    from fedpareto.training.kernels.chain import ChainLayer

SMALL_STUDY = Path(__file__).parent.parent / "studies" / "mobilenet-small.yaml"
SPACES = ("mobilenet-cifar", "mobilenet-imagenet", "mobilenet-tiny", "resnet-cifar")
BARS = {"smallest": "1.3x", "middle": "1.6x", "largest": "1.8x"}
#: A measured pass takes about so many seconds, or one step.
PASS_SECONDS = 1.0
#: Images of a layer's batch; of 224 pixels a side fewer are enough.
LAYER_IMAGES = {"mobilenet-imagenet": 8}
CPU = torch.device("cpu")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--repeats", type=int, default=4, help="passes of each way; the fastest counts")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1")
    if reason := unavailable():
        parser.exit(2, f"{reason}\n")
    torch.set_num_threads(1)
    keep_freed_memory()
    table = Results("fedpareto", "torch", "numba")
    space = load_space("mobilenet-cifar")
    entries = compute_cache(space, space.fitness, Limits(), CACHE_ENTRIES).entries
    chosen = {"smallest": entries[0], "middle": entries[len(entries) // 2], "largest": entries[-1]}
    for label, entry in chosen.items():
        whole_step(table, space, entry, label, 64, BARS[label], options.repeats)
    small = load_space(str(SMALL_STUDY))
    entries = compute_cache(small, small.fitness, Limits(), CACHE_ENTRIES).entries
    entry = min(entries, key=lambda one: abs(one.macs - 2_000_000))
    for batch in (16, 32, 64):
        whole_step(table, small, entry, "near 2M", batch, "1.4x", options.repeats)
    for name in SPACES:
        layers(table, load_space(name), LAYER_IMAGES.get(name, 32), options.repeats)
    Console(width=150).print(table)


def whole_step(
    table: Results, space: SearchSpace, entry: CacheEntry, label: str, batch: int, bar: str, repeats: int
) -> None:
    """Add the row of one network's local steps."""
    config = ClientConfig(epochs=1, batch_size=batch)
    recipe = LocalRecipe(
        space, config, Augmentation(crop=4, flip=True), Normalisation((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
    )
    tensors = extract(space, initial_tensors(space, torch.Generator().manual_seed(0)), entry.architecture)
    task = Task(1, 0, entry.architecture, tensors, 1, 0.01, 0)
    trainers = {kernels: LocalTrainer(recipe, Profile(kernels=kernels), CPU) for kernels in ("torch", "numba")}

    def seconds(kernels: str, steps: int) -> float:
        return (
            trainers[kernels].train(task, noise(steps * batch, CPU, entry.architecture.resolution)).sgd_seconds / steps
        )

    for kernels in trainers:
        seconds(kernels, 1)
    steps = max(1, int(PASS_SECONDS / seconds("torch", 1)))
    times = fastest({name: lambda name=name: seconds(name, steps) for name in trainers}, repeats)  # type: ignore[misc]
    table.add(
        f"{space.name}, {label} ({format_quantity(entry.macs)} MACs), batch {batch}: a step",
        f"{times['numba'] * 1e3:,.1f} ms beside {times['torch'] * 1e3:,.1f}: {times['torch'] / times['numba']:.2f}x",
        bar,
    )


def layers(table: Results, space: SearchSpace, images: int, repeats: int) -> None:
    """Add a row for the layers of every kind: forward and backward, with norm and activation."""
    ratios: dict[str, list[tuple[float, str]]] = {}
    for layer, module, shape in distinct_layers(space, images):
        x = torch.randn(shape).to(memory_format=torch.channels_last)
        name = f"{layer.kernel}x{layer.kernel} to {len(module.conv.weight)} channels, stride {layer.stride}, of {shape}"
        plain, fast = step_of(module, x), step_of(lambda x, m=module, one=layer: fused(one, m, x), x)  # type: ignore[misc]
        times = fastest({"torch": timed(plain), "numba": timed(fast)}, repeats)
        ratios.setdefault(layer.kind, []).append((times["torch"] / times["numba"], name))
    for kind, found in ratios.items():
        values = [ratio for ratio, _ in found]
        least, which = min(found)
        table.add(
            f"{space.name}: {counted(len(found), f'{kind} layer')}, {images} images",
            f"median {statistics.median(values):.2f}x, {sum(value >= 1 for value in values)} at least as fast; "
            f"least {least:.2f}x ({which})",
            "1x",
        )


def distinct_layers(space: SearchSpace, images: int) -> Iterator[tuple["ChainLayer", ConvLayer, tuple[int, ...]]]:
    """Yield each layer that the kernels compute once, as a module, with the shape of its input."""
    from fedpareto.training.kernels.layers import layer_of  # noqa: PLC0415 - numba may be missing

    seen: set[tuple[object, ...]] = set()
    for genes in (smallest_genes(space), largest_genes(space)):
        for module, shape in inputs_of(space, decode(space, genes), images):
            layer = layer_of(module)
            key = (layer, module.conv.weight.shape, shape)
            if layer is not None and layer.epsilon is not None and key not in seen:
                seen.add(key)
                yield layer, module, shape


def inputs_of(space: SearchSpace, architecture: Architecture, images: int) -> list[tuple[ConvLayer, tuple[int, ...]]]:
    """Return the convolutions of a network with the shapes of their inputs."""
    network = build_network(space, architecture).train()
    found: list[tuple[ConvLayer, tuple[int, ...]]] = []
    for module in network.modules():
        if type(module) is ConvLayer:
            module.register_forward_pre_hook(lambda module, given: found.append((module, tuple(given[0].shape))))
    with torch.no_grad():
        network(torch.randn(images, space.in_channels, architecture.resolution, architecture.resolution))
    for module, _ in found:
        module._forward_pre_hooks.clear()
        module.to(memory_format=torch.channels_last)
    return found


def fused(layer: "ChainLayer", module: ConvLayer, x: Tensor) -> Tensor:
    """Run one layer by the kernels."""
    from fedpareto.training.kernels.chain import Chain  # noqa: PLC0415 - numba may be missing

    norm = module.norm
    out: Tensor = Chain.apply(x, (layer,), module.conv.weight, norm.weight, norm.bias)
    return out


def step_of(run: Callable[[Tensor], Tensor] | nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a forward and a backward pass."""
    leaf = x.requires_grad_()
    gradient = torch.ones_like(run(leaf))

    def step() -> None:
        run(leaf).backward(gradient)

    return step


def timed(step: Callable[[], None]) -> Callable[[], float]:
    """Return what measures the seconds of a step, of several if it is short."""

    def measure() -> float:
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < PASS_SECONDS / 20 or not count:
            step()
            count += 1
        return (time.perf_counter() - started) / count

    return measure


def fastest(measures: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Return the least of each measure, taken in turns."""
    taken = [{name: measure() for name, measure in measures.items()} for _ in range(repeats + 1)]
    return {name: min(one[name] for one in taken[1:]) for name in measures}


if __name__ == "__main__":
    main()
