"""How good and how fast the search is: prints one table, with the machine and versions it was measured on.

Rows: published architectures beside the optimum at their MACs, the exact frontier's time and memory, the
genetic search on its own beside it, searches under two and three limits, `search-subnet` in a fresh process with a kept
frontier, and twenty devices in one.
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from results import Results
from rich.console import Console

from fedpareto.cache.costs.cost import AdditiveCost, count_cost
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.exact.frontier import exact_frontier
from fedpareto.cache.exact.frontier_store import kept_path, write_frontier
from fedpareto.cache.exact.solver import solve_best
from fedpareto.fitness.cli import read_architectures
from fedpareto.fitness.part_tables import Parts
from fedpareto.fitness.score import score
from fedpareto.search.query.answering import answer_targets
from fedpareto.search.query.searcher import search, search_cheapest, search_exactly
from fedpareto.search.query.subject import SearchTarget
from fedpareto.search.query.targets import read_targets
from fedpareto.supernet.arrays import FloatArray
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.machine import available_cores
from fedpareto.supernet.common.storage.cache_folder import VARIABLE
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.genes import encode
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space

BIN = Path(sys.executable).parent
PUBLISHED = Path(__file__).parent.parent / "examples/deepfednas.jsonl"
TARGETS = Path(__file__).parent.parent / "examples/targets.yaml"
BARS = {"resnet-cifar": "3 s, 2 GiB", "mobilenet-cifar": "1 s, 2 GiB"}
THREE = ("resnet-cifar", "mobilenet-cifar", "mobilenet-imagenet")
DRAWS = 12
LIMITED = {"resnet-cifar": (500_000_000, 8_000_000), "mobilenet-cifar": (60_000_000, 2_000_000)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--frontier", help=argparse.SUPPRESS)
    parser.add_argument("--searches", type=int, default=7, help="searches in fresh processes, whose median is printed")
    options = parser.parse_args()
    if options.frontier:
        print(json.dumps(frontier_cost(options.frontier)))
        return
    table = Results("fedpareto", "numpy", "pymoo")
    for published, optimum in published_rows():
        table.add("published network, resnet-cifar", published, "the optimum")
        table.add("  the optimum at its MACs", optimum, "")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, VARIABLE: folder}
        for name, bar in BARS.items():
            command = [sys.executable, __file__, "--frontier", name]
            done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
            cost = json.loads(done.stdout)
            measured = f"{cost['seconds']:.2f} s for {cost['points']:,} networks, {cost['megabytes']:.0f} MB peak"
            table.add(f"exact frontier, {name}", measured, bar)
            table.add(f"fittest network under two limits, {name}", f"{cost['fittest']:.2f} s", "")
            table.add(f"smallest network so fit, one limit, {name}", f"{cost['smallest']:.2f} s", "")
            table.add(f"fittest network from a kept frontier, {name}", f"{1000 * cost['kept']:.1f} ms", "")
        for name in THREE:
            worst, middle = three_limits(name)
            measured = f"{worst:.2f} s at most, {middle:.2f} s median of {DRAWS} draws"
            table.add(f"fittest network under three limits that bind, {name}", measured, "10 s")
        for name in BARS:
            table.add(f"NSGA-II on its own, {name}", cold_gap(name, Path(folder), environment), "1 %, 60 s")
        for name in BARS:
            seconds = fresh_search(name, options.searches, environment)
            table.add(f"search-subnet, fresh process, {name}", f"{seconds:.2f} s (median)", "0.6 s")
        table.add("search-subnet --targets, mobilenet-cifar", many_targets(environment), "")
    Console(width=140).print(table)


def published_rows() -> list[tuple[str, str]]:
    """Return each published network and the optimum at its MACs, in words."""
    space = load_space("resnet-cifar")
    frontier = exact_frontier(space, space.fitness)
    rows = []
    for _, architecture in read_architectures(str(PUBLISHED)):
        scores = score(space, encode(space, architecture))
        macs, fitness = int(scores.macs[0]), float(scores.fitness[0])
        index = frontier.best_within(macs)
        if index is None:
            raise RuntimeError("the frontier has nothing within the MACs of a network of its space")
        gap = frontier.values[index] - fitness
        published = f"{macs:,} MACs, {scores.params[0]:,} parameters, F {fitness:.4f}, ρ {scores.rho[0]:.6f}"
        optimum = f"{frontier.macs[index]:,} MACs, F {frontier.values[index]:.4f}: {gap:.1f} more ({gap / fitness:.1%})"
        rows.append((published, optimum))
    return rows


def frontier_cost(name: str) -> dict[str, float]:
    """Return seconds, peak memory and points of the frontier, and seconds of searches under limits beside it."""
    space = load_space(name)
    started = time.perf_counter()
    frontier = exact_frontier(space, space.fitness)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    write_frontier(kept_path(space, space.fitness), frontier)
    macs, params = LIMITED[name]
    started = time.perf_counter()
    fittest = search_exactly(frontier, Limits(macs, params))
    middle = time.perf_counter()
    search_cheapest(space, space.fitness, fittest.fitness, Limits(params=params))
    ended = time.perf_counter()
    return {
        "seconds": seconds,
        "megabytes": peak,
        "points": len(frontier.macs),
        "fittest": middle - started,
        "smallest": ended - middle,
        "kept": from_kept(name),
    }


def from_kept(name: str) -> float:
    """Return the median seconds of a search under a limit on MACs alone, the frontier in the cache folder."""
    space, times = load_space(name), []
    for _ in range(9):
        started = time.perf_counter()
        search(space, space.fitness, Limits(LIMITED[name][0]))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def three_limits(name: str) -> tuple[float, float]:
    """Return the greatest and the median seconds of searches under limits on MACs, parameters and a third cost.

    Each is below what the fittest network under those before it has, so that as a rule all bind.
    """
    space = load_space(name)
    frontier = exact_frontier(space, space.fitness)
    times = []
    for number in range(DRAWS):
        generator = np.random.default_rng(number)
        index = int(generator.integers(len(frontier.macs) // 5, len(frontier.macs)))
        macs = count_cost(space, "macs", float(frontier.macs[index]))
        costs: list[AdditiveCost] = [macs]
        genes = frontier.genes[[index]]
        for cost in (count_cost(space, "params"), drawn_times(space, generator)):
            limit = float(cost.of(space, genes)[0] * generator.uniform(0.75, 0.97))
            costs.append(dataclasses.replace(cost, limit=limit))
            started = time.perf_counter()
            found = solve_best(space, space.fitness, costs)
            seconds = time.perf_counter() - started
            genes = found if len(found) else genes
        times.append(seconds)
    return max(times), statistics.median(times)


def drawn_times(space: SearchSpace, generator: np.random.Generator) -> AdditiveCost:
    """Return milliseconds that grow with the MACs of a part, more or less."""
    parts = count_cost(space, "macs").parts

    def drawn(macs: FloatArray) -> FloatArray:
        times: FloatArray = 1e-5 * macs**0.7 * generator.lognormal(0, 0.6, len(macs))
        return times

    blocks = []
    for slots in parts.blocks:
        tables = [drawn(slot) for slot in slots[:2]]
        blocks.append(tuple(tables[min(number, 1)] for number in range(len(slots))))
    return AdditiveCost("latency", Parts(drawn(parts.stem), tuple(blocks), drawn(parts.head)), unit="ms")


def cold_gap(name: str, folder: Path, environment: dict[str, str]) -> str:
    """Return what ``build-cache --cold`` reaches, in words."""
    output = folder / f"{name}.jsonl"
    command = [str(BIN / "build-cache"), "--space", name, "--cold", "--output", str(output)]
    subprocess.run([*command[:3], "--solver", "exact", "--output", f"{output}.exact"], check=True, env=environment,
                   capture_output=True)  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    (gap,) = [line for line in done.stdout.splitlines() if line.startswith("optimality gap")]
    return f"{seconds:.1f} s; {gap}"


def fresh_search(name: str, searches: int, environment: dict[str, str]) -> float:
    """Return the median seconds of a search in a fresh process, the frontier being kept."""
    budget = format_quantity(LIMITED[name][0])
    command = [str(BIN / "search-subnet"), "--space", name, "--flops-budget", budget, "--json"]
    times = []
    for _ in range(searches + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, env=environment, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def many_targets(environment: dict[str, str]) -> str:
    """Return how long the twenty devices of the example take, in one process and in several, in words."""
    space, targets = load_space("mobilenet-cifar"), read_targets(TARGETS)
    subject = SearchTarget(space, space.fitness)
    times = []
    for cores in (1, available_cores()):
        started = time.perf_counter()
        answer_targets(subject, targets, 0, SILENT, cores)
        times.append(time.perf_counter() - started)
    command = [str(BIN / "search-subnet"), "--space", space.name, "--targets", str(TARGETS), "--json"]
    started = time.perf_counter()
    subprocess.run(command, check=True, env=environment, capture_output=True)
    seconds = time.perf_counter() - started
    return (
        f"{times[0]:.2f} s for {len(targets)} devices in one process, {times[1]:.2f} s in "
        f"{available_cores()} processes; the command {seconds:.2f} s"
    )


if __name__ == "__main__":
    main()
