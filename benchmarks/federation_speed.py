"""What a real federation costs: prints one table, with the machine and versions it was measured on.

Rounds of ``train-supernet`` over Flower, with a SuperLink and four SuperNodes on this machine, beside the same rounds
in one process; the bytes of a round beside those of whole supernets; and the server's own work with 1,000 registered
clients, whose answers come at once.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results import Results
from rich.console import Console
from runs import MeasuredRun, train, write_noise

from fedpareto.cache.build import compute_cache
from fedpareto.cache.cache_file import Cache, write_cache
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CACHE_ENTRIES, make_entries
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.genes import largest_genes
from fedpareto.supernet.networks.weights import initial_tensors
from fedpareto.supernet.space import HeadSpec, SearchSpace, StageSpec, StemSpec
from fedpareto.supernet.space_file import load_space, space_to_mapping
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.flower import WireDtype
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.federation import connect
from fedpareto.training.engines.flower.relay_socket import Reply
from fedpareto.training.engines.flower.superlink import MessageType
from fedpareto.training.evaluation.evaluator import Evaluation
from fedpareto.training.methods.registry import method_of
from fedpareto.training.randomness import torch_stream
from fedpareto.training.rounds.loop import train as train_rounds
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import Counts, RunState
from fedpareto.training.trackers.protocol import Trackers
from fedpareto.training.trackers.records import RoundRecord

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy"))
from loopback import Federation, find_nginx

NODES = 4
#: Sides of the largest layer that make slices of 5 and 50 MB.
HEADS = {"5 MB": 1056, "50 MB": 3480}
REGISTERED, DRAWN = 1000, 50
FIXED = {"--precision": "fp32", "--execution.memory-format": "channels_last", "--execution.fused": "true",
         "--execution.graphs": "false", "--execution.kernels": "torch", "--execution.workers": 1,
         "--execution.threads": 1}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=4, help="rounds of a run; the first is not counted")
    rounds = parser.parse_args().rounds
    table = Results("fedpareto", "flwr", "torch")
    with tempfile.TemporaryDirectory() as folder:
        add_rounds(table, Path(folder), rounds)
    dtypes: tuple[WireDtype, ...] = ("fp32", "bf16")
    for dtype in dtypes:
        add_registered(table, dtype)
    Console(width=140).print(table)


def add_rounds(table: Results, folder: Path, rounds: int) -> None:
    """Compare rounds over Flower with rounds in one process."""
    write_noise(folder / "images", 96, 8)
    nodes = [f'partition-id={client} data-root="{folder / "images"}"' for client in range(NODES)]
    environ = {"OMP_NUM_THREADS": "1", "FEDPARETO_CACHE_DIR": str(folder / "kept")}
    with Federation(folder / "flower", nodes, gateway=find_nginx() is not None, environ=environ) as started:
        started.wait_until_ready()
        flower = {"--engine": "flower", "--flower.address": started.address}
        flower |= {"--flower.root-certificates": str(started.root_certificates)}
        for size, side in HEADS.items():
            options = {**write_space(folder, f"head-{side}", side), **FIXED, "--rounds": rounds}
            options |= {"--clients.count": NODES, "--clients.per-round": NODES, "--client.batch-size": 4}
            alone = train(folder, f"alone-{side}", options.pop("--space"), options)
            options |= {**write_space(folder, f"head-{side}", side), **flower}
            over = train(folder, f"flower-{side}", options.pop("--space"), options)
            table.add(
                f"round of {NODES} clients, slices of {size}",
                f"{wall(over):.1f} s over Flower ({outside(over):.1f} s not SGD), {wall(alone):.2f} s in one process",
                "-",
            )


def write_space(folder: Path, name: str, side: int) -> dict[str, Any]:
    """Write a space of one network, nearly all of it one linear layer, and its cache; return the options."""
    space = SearchSpace(
        name=name,
        family="mobilenet",
        stem=StemSpec(width=8, stride=2, activation="hswish"),
        stages=(StageSpec(16, stride=2), StageSpec(24, stride=1)),
        resolutions=(8,),
        depths=(1,),
        kernels=(3,),
        expands=(2,),
        width_multipliers=(1.0,),
        head=HeadSpec(side, side),
        classes=2,
    )
    entries = make_entries(space, largest_genes(space)[None], space.fitness)
    path, cache = folder / f"{name}.yaml", folder / f"{name}.jsonl"
    path.write_text(json.dumps(space_to_mapping(space)))
    write_cache(cache, Cache(space, tuple(entries), space.fitness, "given", {}))
    return {"--space": str(path), "--cache": str(cache)}


def wall(run: MeasuredRun) -> float:
    """Return the seconds of a round; the first one holds what is only done once."""
    return statistics.median(float(record["seconds"]) for record in run.records[1:])


def outside(run: MeasuredRun) -> float:
    """Return the seconds of a round in which no client trains."""
    return statistics.median(float(record["seconds"] - record["sgd_seconds"]) for record in run.records[1:])


class EchoLink:
    """Nodes that answer every message at once with what they were sent: what is left is the server's work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._replies: dict[str, Reply] = {}

    def nodes(self) -> Sequence[str]:
        """Return the names of all nodes."""
        return [f"{node:04d}" for node in range(REGISTERED)]

    def send(self, node: str, kind: MessageType, header: bytes, blob: str | None, deadline: float) -> str | None:
        """Take a message and have its answer ready."""
        del kind, deadline
        name = f"message-{len(self._replies)}-{node}"
        (self.folder / name).write_bytes((self.folder / blob).read_bytes() if blob else b"")
        fields = {"client": int(node), "examples": 100, "validation": 10, "classes": ["a", "b"]}
        described = {**fields, "pixels": [[100 * 32**2 // 256] * 256] * 3}
        jobs = [
            {"round": job["round"], "architecture": job["architecture"], "examples": 100, "loss": 1.0, "seconds": 0.0}
            for job in wire.decode(header)["jobs"]
        ]
        self._replies[name] = Reply(wire.encode({"jobs": jobs} if blob else described), self.folder / name)
        return name

    def collect(self, messages: Mapping[str, int]) -> Mapping[str, Reply]:
        """Return all answers that are asked for."""
        return {name: self._replies[name] for name in messages}

    def wait(self) -> None:
        """Wait for nothing, as every answer is there at once."""


class NoProbes:
    """Evaluates nothing."""

    def probe(self, tensors: object, entries: object) -> Evaluation:
        """Return nothing."""
        del tensors, entries
        return Evaluation()


@dataclasses.dataclass
class Remembered(Trackers):
    """Remembers the rounds."""

    records: list[RoundRecord] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__([])

    def round_done(self, record: RoundRecord) -> None:
        """Remember it."""
        self.records.append(record)


def add_registered(table: Results, dtype: WireDtype) -> None:
    """Measure rounds of the server's side alone, with 1,000 registered clients."""
    space = load_space("mobilenet-cifar").adapted(classes=2)
    cache = compute_cache(space, space.fitness, Limits(), CACHE_ENTRIES)
    config = RunConfig(
        space=space.name,
        rounds=4,
        engine="flower",
        clients=ClientsConfig(REGISTERED, DRAWN),
        evaluation=EvaluationConfig(every=1000),
        checkpoint=CheckpointConfig(every=1000),
    )
    flower = dataclasses.replace(config.flower, wire_dtype=dtype)
    config = dataclasses.replace(config, flower=flower)
    with tempfile.TemporaryDirectory() as folder:
        federation = connect(EchoLink(Path(folder)), config, space, SILENT)
        tracker = Remembered()
        run = Run(
            folder=Path(folder) / "run",
            config=config,
            config_mapping=config_to_mapping(config),
            space=space,
            entries=cache.entries,
            method=method_of(config, space, cache),
            engine=federation.engine(config, space),
            evaluator=NoProbes(),
            tracker=tracker,
        )
        tensors = initial_tensors(space, torch_stream(0, "initialisation"))
        state = RunState(0, Counts.zero(REGISTERED), (0,) * len(cache.entries))
        train_rounds(run, state, Models(tensors))
    last = tracker.records[1:]
    seconds = statistics.median(record.seconds or 0.0 for record in last)
    down, whole = sum(record.traffic.down for record in last), sum(record.bytes_whole for record in last)
    table.add(
        f"server's work in a round, {DRAWN} of {REGISTERED} registered clients, mobilenet-cifar, {dtype}",
        f"{seconds:.1f} s; {down / len(last) / 1e6:.0f} MB down, {down / whole:.0%} of whole supernets in fp32",
        "-",
    )


if __name__ == "__main__":
    main()
