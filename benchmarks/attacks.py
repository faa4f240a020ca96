"""Attacks of hostile clients against rules of aggregation: accuracy kept, on the digits; as JSON and a Markdown table.

Every run trains mobilenet-tiny for twenty rounds with all of ten clients, whose images are drawn alike. Accuracy is the
mean of five subnets, smallest to largest, on validation images. All rules but ``unbounded mean`` have the bounds on
updates that are on by default. The bar: with 2 of 10 clients hostile ``trimmed`` or ``median`` stays within 3 points of
no attack where the unbounded mean falls to chance. Of a run whose merge is refused counts what was merged.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from attack_methods import (
    Attack,
    HostileEngine,
    flipped_labels,
    free_rider,
    honest_training,
    little_is_enough,
    noise,
    scaled,
)

from fedpareto.cache.build import compute_cache
from fedpareto.cache.cache_file import write_cache
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CACHE_ENTRIES
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.common.terminal.console import stderr
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.evaluation import EvaluationConfig
from fedpareto.training.config.execution import ExecutionConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.config.tracking import TrackingConfig
from fedpareto.training.engines.simulation.federation import SimulatedFederation
from fedpareto.training.evaluation.evaluator import mean_accuracy
from fedpareto.training.rounds.loop import train
from fedpareto.training.setup import Prepared, assemble, new_run
from fedpareto.training.trackers.protocol import Trackers

SPACE, CLIENTS, ROUNDS = "mobilenet-tiny", 10, 20
UNBOUNDED = "unbounded mean"
RULES = (UNBOUNDED, "mean", "clipped", "median", "trimmed", "krum")
#: Rules that the bar compares.
BAR_RULES = (UNBOUNDED, "median", "trimmed")
#: Accuracy of guessing among ten digits, with what luck may add to it.
CHANCE = 0.2
#: Clients that are hostile in the table, and where the bar is measured; points of accuracy that the bar allows.
HOSTILE, BAR_HOSTILE, BAR = (3, 1), 2, 0.03
BAR_ATTACKS = ("x10^6", "sign flip x10")


@dataclasses.dataclass(frozen=True)
class Trial:
    """Trial: one run under attack.

    Attributes:
        rule: rule of aggregation, with bounds unless it says otherwise.
        attack: name of the attack; empty for none.
        hostile: number of hostile clients.
        seed: seed of the run.
    """

    rule: str
    attack: str
    hostile: int
    seed: int


def attacks(space: SearchSpace) -> dict[str, Attack]:
    """Attacks by name."""
    return {
        "sign flip": scaled(-1.0),
        "x10": scaled(10.0),
        "x10^6": scaled(1e6),
        "noise": noise,
        "label flip": honest_training,
        "little is enough": little_is_enough(space),
        "free rider": free_rider,
        "sign flip x10": scaled(-10.0),
    }


def trials(seeds: Sequence[int], names: Sequence[str]) -> Iterator[Trial]:
    """Trials of the table and of the bar, the most telling first; some come twice."""
    yield from (Trial(rule, "", 0, seeds[0]) for rule in RULES)
    yield from _trials_of_bar(seeds, BAR_ATTACKS[0])
    for hostile, name, rule in itertools.product(HOSTILE, names, RULES):
        yield Trial(rule, name, hostile, seeds[0])
    yield from _trials_of_bar(seeds, BAR_ATTACKS[1])
    for seed, hostile, name, rule in itertools.product(seeds, HOSTILE, names, RULES):
        yield Trial(rule, name, hostile, seed)


def _trials_of_bar(seeds: Sequence[int], attack: str) -> Iterator[Trial]:
    for seed in seeds:
        yield Trial(UNBOUNDED, "", 0, seed)
        yield from (Trial(rule, attack, BAR_HOSTILE, seed) for rule in BAR_RULES)


def config_of(trial: Trial, cache: Path, folder: Path, rounds: int = ROUNDS) -> RunConfig:
    """Configuration of a trial's run."""
    return RunConfig(
        space=SPACE,
        output=str(folder),
        cache=str(cache),
        rounds=rounds,
        seed=trial.seed,
        device="cpu",
        precision="fp32",
        data=DataConfig(name="digits"),
        partition=PartitionConfig("iid"),
        clients=ClientsConfig(count=CLIENTS, per_round=CLIENTS),
        # Bounds by steps follow from the clip of gradients.
        client=ClientConfig(epochs=2, clip=0.0) if trial.rule == UNBOUNDED else ClientConfig(epochs=2),
        server=ServerConfig(outlier_factor=0.0) if trial.rule == UNBOUNDED else ServerConfig(aggregation=trial.rule),
        evaluation=EvaluationConfig(every=rounds, calibration_images=512),
        tracking=TrackingConfig(wandb="off", progress=False),
        execution=ExecutionConfig("channels_last", True, False, False, 1, 1, "numba"),
    )


def accuracy_of(trial: Trial, cache: Path, rounds: int = ROUNDS) -> float:
    """Mean accuracy of the probes after the run; of a run that breaks down, of what it has left."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = new_run(config_of(trial, cache, Path(folder) / "run", rounds), SILENT)
        hostile = range(trial.hostile)
        attack = attacks(prepared.space)[trial.attack] if trial.attack else honest_training
        if trial.attack == "label flip":
            prepared = _with_flipped_labels(prepared, hostile)
        run = assemble(prepared, Trackers([]), lambda: False)
        run = dataclasses.replace(run, engine=HostileEngine(run.engine, hostile, attack))
        state, models = prepared.checkpoint.state, prepared.checkpoint.models
        try:
            best = train(run, state, models).best
        except UserError as error:
            stderr.print(f"{trial}: {error}")
            return mean_accuracy(run.evaluator.probe(models.supernet, run.method.probes(state)).probes)
        # One round alone is evaluated, the last.
        return best.accuracy if best else 0.0


def _with_flipped_labels(prepared: Prepared, hostile: Sequence[int]) -> Prepared:
    """Run whose hostile clients have wrong labels; images for validation and calibration keep theirs."""
    federation = prepared.federation
    if not isinstance(federation, SimulatedFederation):
        raise TypeError("labels are flipped in simulations")
    members = {client: federation.split.clients[client] for client in hostile}
    labels = flipped_labels(federation.data.labels, members, len(federation.split.classes))
    data = dataclasses.replace(federation.data, labels=labels)
    return dataclasses.replace(prepared, federation=SimulatedFederation(data, federation.split))


def write_json(path: Path, found: Mapping[Trial, float]) -> None:
    """Write what was found so far."""
    versions = {name: metadata.version(name) for name in ("fedpareto", "torch", "numba")}
    rows = [{**dataclasses.asdict(trial), "accuracy": accuracy} for trial, accuracy in found.items()]
    path.write_text(json.dumps({"machine": machine(), "versions": versions, "trials": rows}, indent=1))


def read_json(path: Path) -> dict[Trial, float]:
    """Return what an earlier call has found; nothing where there is no file."""
    rows = json.loads(path.read_text())["trials"] if path.exists() else []
    return {Trial(row["rule"], row["attack"], row["hostile"], row["seed"]): row["accuracy"] for row in rows}


def markdown(found: Mapping[Trial, float]) -> str:
    """Tables of the mean accuracies in percent, over the seeds that were run; ± is half the range over seeds."""
    counts = sorted({trial.hostile for trial in found})
    lines = [f"| attack | hostile of {CLIENTS} | {' | '.join(RULES)} |", f"|---|---|{'---|' * len(RULES)}"]
    for hostile in counts:
        for name in dict.fromkeys(trial.attack for trial in found if trial.hostile == hostile):
            cells = [_cell([v for t, v in found.items() if (t.rule, t.attack, t.hostile) == (rule, name, hostile)])
                     for rule in RULES]  # fmt: skip
            lines.append(f"| {name or 'none'} | {hostile} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    half = (max(values) - min(values)) / 2
    return f"{100 * statistics.mean(values):.1f}" + (f" ± {100 * half:.1f}" if len(values) > 1 else "")


def bar_words(found: Mapping[Trial, float]) -> str:
    """Whether the bar is met, by attack and seed."""
    lines = []
    for seed, name in itertools.product(sorted({trial.seed for trial in found}), BAR_ATTACKS):
        attacked = {rule: found.get(Trial(rule, name, BAR_HOSTILE, seed)) for rule in BAR_RULES}
        unattacked = found.get(Trial(UNBOUNDED, "", 0, seed))
        known = {rule: value for rule, value in attacked.items() if value is not None}
        if unattacked is None or len(known) < len(attacked):
            continue
        best = max(known["median"], known["trimmed"])
        met = known[UNBOUNDED] <= CHANCE and best >= unattacked - BAR
        percent = ", ".join(f"{rule} {100 * value:.1f}" for rule, value in known.items())
        lines.append(f"seed {seed}, {name}: {percent}; without attack {100 * unattacked:.1f}: "
                     + ("met" if met else "missed"))  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run the trials one after another; what is done is written after each."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--json", type=Path, default=Path("attacks.json"), help="file of the results; what it holds is not run again"
    )
    parser.add_argument("--markdown", type=Path, default=Path("attacks.md"), help="file of the table")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--minutes", type=float, default=90.0, help="no run is started after that")
    options = parser.parse_args()
    end, found = time.monotonic() + 60 * options.minutes, read_json(options.json)
    space = load_space(SPACE)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache.jsonl"
        write_cache(cache, compute_cache(space, space.fitness, Limits(), CACHE_ENTRIES, listener=SILENT))
        names = [name for name in attacks(space) if name not in BAR_ATTACKS[1:]]
        for trial in trials(range(options.seeds), names):
            if trial in found:
                continue
            if time.monotonic() > end:
                break
            started = time.monotonic()
            found[trial] = accuracy_of(trial, cache)
            stderr.print(f"{trial}: {100 * found[trial]:.1f} % ({time.monotonic() - started:.0f} s)")
            write_json(options.json, found)
            options.markdown.write_text(f"{markdown(found)}\n{bar_words(found)}\n")
    print(markdown(found), bar_words(found), sep="\n")


if __name__ == "__main__":
    main()
