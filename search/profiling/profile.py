"""Measurement of every distinct block of a space, in groups, each of which is kept as soon as it is measured."""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fedpareto.cache.costs.latency.table import (
    Conditions,
    LatencyTable,
    check_conditions,
    read_table,
    write_latency_table,
)
from fedpareto.fitness.part_tables import space_parts
from fedpareto.search.profiling.parts import Choice, distinct_choices, input_shape, measurable, ready
from fedpareto.search.runtimes.runtime import Measurable, Runtime
from fedpareto.search.runtimes.stopwatch import Clock, Effort, Timing, measure_against
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import command
from fedpareto.supernet.genes import decode, gene_layout
from fedpareto.supernet.networks.network import build_network
from fedpareto.supernet.space import SearchSpace

#: A group of blocks has no more weights than this: the memory they take stays bounded.
_MOST_WEIGHTS = 16_000_000

#: A group is measured no longer than this, however wide its intervals are.
_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where and how the blocks and networks of a space are measured.

    Attributes:
        space: the search space.
        runtime: what runs them.
        batch: images a run.
        interval: half the width aimed at of a median's confidence interval, relative to it.
        seed: of weights, inputs and orders.
        clock: what time is read from.
        group: most blocks measured in turns, about as many as a network has.
    """

    space: SearchSpace
    runtime: Runtime
    batch: int
    interval: float
    seed: int
    clock: Clock = time.perf_counter_ns
    group: int = 25

    @property
    def effort(self) -> Effort:
        """How well each group's medians have to be known."""
        return Effort(interval=self.interval, most=300, seconds=_SECONDS)

    def network(self, architecture: Architecture) -> Measurable:
        """Return a whole network as a device runs it."""
        generator = torch.Generator().manual_seed(self.seed)
        network = build_network(self.space, architecture, running_statistics=True, device="meta")
        shape = (self.batch, self.space.in_channels, architecture.resolution, architecture.resolution)
        return Measurable(ready(network, generator), torch.randn(shape, generator=generator))

    def reference(self) -> Measurable:
        """Return the network with every choice in the middle, which all times are compared with."""
        return self.network(decode(self.space, gene_layout(self.space).sizes // 2))


def clock_of(device: torch.device, threads: int) -> tuple[str, Clock]:
    """Return the clock for a device, and its name.

    One thread of the CPU that computes alone is timed by the processor time it has had, so that other processes on
    its core are not counted; elsewhere that time has too few digits, or is not that of the work.
    """
    if device.type == "cpu" and threads == 1 and sys.platform == "linux":
        return "processor", time.thread_time_ns
    return "wall", time.perf_counter_ns


def partial_path(output: Path) -> Path:
    """Return where the blocks measured so far are kept until a table is complete."""
    return output.with_name(f"{output.name}.partial")


def started_table(output: Path, conditions: Conditions) -> LatencyTable:
    """Return what an interrupted measurement of the same kind has left, or a table without blocks.

    Raises:
        LatencyTableError: what it has left was measured under other conditions; the message names the field.
    """
    partial = partial_path(output)
    if not exists(partial):
        return LatencyTable({}, conditions)
    try:
        table = read_table(partial)
    except UserError as error:
        raise UserError(f"{error}; to measure anew, remove it: {command('rm', partial)}") from error
    wanted = dataclasses.asdict(conditions)
    del wanted["created"]
    check_conditions(table, partial, remedy="repeat the command that began it, or remove the file", **wanted)
    return table


def profile(bench: Bench, output: Path, started: LatencyTable, listener: ProgressListener) -> LatencyTable:
    """Measure the blocks that ``started`` lacks and write the complete table to ``output``.

    After each group the table so far is written to ``partial_path(output)``, which is removed in the end.

    Raises:
        UserError: a file cannot be written.
    """
    choices = distinct_choices(bench.space)
    generator = np.random.default_rng((bench.seed, len(started.blocks)))
    missing = [str(name) for name in generator.permutation(list(choices)) if name not in started.blocks]
    table, total = started, len(choices)
    if missing:
        listener.report("measuring blocks", total - len(missing), total)
        (reference,) = bench.runtime.calls([bench.reference()])
    while missing:
        group, missing = _next_group(bench, choices, missing)
        calls = bench.runtime.calls(_measurables(bench, [choices[name] for name in group]))
        reference_ms, timings = measure_against(reference, calls, bench.effort, generator, bench.clock)
        stem = space_parts(bench.space).stem
        # A network is one call, but so is each of its blocks: all but the stem go without.
        calls_over = [0.0 if choices[name].part == stem else timings[-1].ms for name in group]
        found = {n: _lessened(t, over) for n, t, over in zip(group, timings[:-1], calls_over, strict=True)}
        table = _joined(table, reference_ms, found)
        write_latency_table(partial_path(output), table)
        listener.report("measuring blocks", total - len(missing), total)
    write_latency_table(output, table)
    partial_path(output).unlink(missing_ok=True)
    return table


def _next_group(bench: Bench, choices: Mapping[str, Choice], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the first few names and the rest: a group and what is left."""
    weights = np.cumsum([choices[name].layers(bench.space).weights.sum() for name in names[: bench.group]])
    count = max(1, int(np.searchsorted(weights, _MOST_WEIGHTS, side="right")))
    return list(names[:count]), list(names[count:])


def _measurables(bench: Bench, choices: Sequence[Choice]) -> list[Measurable]:
    """Return the blocks, and last a module that does nothing with the input of a first block."""
    generator = torch.Generator().manual_seed(bench.seed)
    first = space_parts(bench.space).blocks[0][0]
    layers = Choice(first, first.choices // 2).layers(bench.space)
    empty = torch.zeros(input_shape(layers, bench.batch))
    return [
        *(measurable(bench.space, choice, bench.batch, generator) for choice in choices),
        Measurable(nn.Identity(), empty),
    ]


def _lessened(timing: Timing, over: float) -> Timing:
    """Return a timing less the time of an empty call."""
    ms, low, high = (max(0.0, value - over) for value in timing[:3])
    return Timing(ms, low, high, timing.runs)


def _joined(table: LatencyTable, reference_ms: float, found: Mapping[str, Timing]) -> LatencyTable:
    """Return the table with the blocks of one more group, given in units of the reference network."""
    references = (*table.references, reference_ms)
    unit = float(np.median(references))
    change = unit / float(np.median(table.references)) if table.references else 1.0
    blocks = {name: ms * change for name, ms in table.blocks.items()}
    spread = {name: (low * change, high * change, runs) for name, (low, high, runs) in table.spread.items()}
    for name, (ms, low, high, runs) in found.items():
        blocks[name], spread[name] = ms * unit, (low * unit, high * unit, runs)
    return dataclasses.replace(table, blocks=blocks, spread=spread, references=references)
