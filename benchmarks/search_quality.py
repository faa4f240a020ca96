"""How good and how fast the search is: prints one table, with the machine and versions it was measured on.

Rows: published architectures beside the optimum at their MACs, the exact frontier's time and memory, the
genetic search on its own beside it, `search-subnet` in a fresh process with a kept frontier, and twenty devices
in one.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import Results
from rich.console import Console

from cache.frontier import exact_frontier
from cache.kept import kept_path, write_frontier
from cache.limits import Limits
from fitness.cli import read_architectures
from fitness.score import score
from search.searcher import search_cheapest, search_exactly
from supernet.genes import encode
from supernet.kept import VARIABLE
from supernet.space import load_space
from supernet.units import format_quantity

BIN = Path(sys.executable).parent
PUBLISHED = Path(__file__).parent.parent / "examples/deepfednas.jsonl"
TARGETS = Path(__file__).parent.parent / "examples/targets.yaml"
BARS = {"resnet-cifar": "6 s, 2 GiB", "mobilenet-cifar": "2 s, 2 GiB"}
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
        for name in BARS:
            table.add(f"NSGA-II on its own, {name}", cold_gap(name, Path(folder), environment), "1 %, 60 s")
        for name in BARS:
            seconds = fresh_search(name, options.searches, environment)
            table.add(f"search-subnet, fresh process, {name}", f"{seconds:.2f} s (median)", "1 s")
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
    }


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
    """Return how long the twenty devices of the example take in one process, in words."""
    command = [str(BIN / "search-subnet"), "--space", "mobilenet-cifar", "--targets", str(TARGETS), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    reports = json.loads(done.stdout).values()
    of_macs = [report["search_seconds"] for report in reports if set(report["limits"]) == {"macs"}]
    return (
        f"{seconds:.2f} s for {len(reports)} devices; {sum(of_macs):.2f} s of it for the {len(of_macs)} with a budget "
        "of MACs alone"
    )


if __name__ == "__main__":
    main()
