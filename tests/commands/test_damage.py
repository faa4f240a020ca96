"""Every file that a command reads, damaged in every way: one line and code 2, or what the whole file gives."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.commands import Outcome, called
from helpers.damage import damages_of, harmless
from helpers.networks.latency import conditions, random_times
from helpers.runs.federation import MICRO, finished_run, micro_config, write_space

from fedpareto.cache.costs.latency.table import LatencyTable, write_latency_table
from fedpareto.cache.entries import make_entry
from fedpareto.cache.exact.frontier_store import kept_path
from fedpareto.fitness.cli import main as score_subnet
from fedpareto.search.cli import main as search_subnet
from fedpareto.search.comparison.cli import main as compare_methods
from fedpareto.search.comparison.results.outcome import MeasuredNetwork, TrialResult, write_outcome
from fedpareto.search.profiling.cli import main as profile_device
from fedpareto.search.ranking.cli import main as validate_fitness
from fedpareto.search.subnet import load_subnet
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.digests import DIGESTS, check_folder, read_digests
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.training.cli import main as train_supernet
from fedpareto.training.config.evaluation import CheckpointConfig
from fedpareto.training.config.methods import DecNasConfig
from fedpareto.training.config.run import config_to_mapping
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.runs.checkpoint import newest_checkpoint

_SETTINGS = DecNasConfig(budget="110K", step=0.15, drop_after=1, least_rounds=1, most_rounds=2)

#: What differs from time to time.
_TIMES = re.compile(r'"(?:seconds|search_seconds)": [\d.e-]+|in [\d.]+ m?s\b')


@dataclasses.dataclass(frozen=True)
class World:
    """A folder with everything that commands read."""

    root: Path

    @property
    def run(self) -> Path:
        """A finished run with server momentum."""
        return self.root / "plain" / "run"

    @property
    def search(self) -> Path:
        """A run in the middle of its search, with networks beside the supernet."""
        return self.root / "search" / "run"

    def path(self, name: str) -> Path:
        """Return one of the files that are damaged."""
        if name == "kept frontier":
            return kept_path(MICRO, MICRO.fitness)
        return self.root / name.replace("CHECKPOINT", self._newest(name))

    def _newest(self, name: str) -> str:
        run = self.search if name.startswith("search") else self.run
        return f"checkpoints/{newest_checkpoint(run).name}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    for name in ("plain", "search"):
        (world.root / name).mkdir()
    finished_run(world.run.parent, rounds=2, server=ServerConfig(momentum=0.9))
    keep = CheckpointConfig(every=1, keep=100)
    finished_run(world.search.parent, rounds=1, method="decnas", decnas=_SETTINGS, checkpoint=keep)
    _end_in_the_search(world.search)
    write_space(world.root)
    subnet = ("--flops-budget", "200K", "--export", "torchscript", "--output", world.root / "subnet")
    assert _outcome(search_subnet, "--run", world.run, *subnet).code == 0
    assert _outcome(search_subnet, "--space", world.root / "micro.yaml", "--flops-budget", "200K").code == 0
    space = MICRO.adapted(classes=10)
    write_latency_table(world.root / "table.json", LatencyTable(random_times(space), conditions(space="micro")))
    _write_study(world.root)
    return world


def _end_in_the_search(run: Path) -> None:
    """Remove the checkpoints after the first that has networks beside the supernet."""
    folders = sorted((run / "checkpoints").iterdir())
    first = next(number for number, folder in enumerate(folders) if list(folder.glob("branch-*")))
    for folder in folders[first + 1 :]:
        shutil.rmtree(folder)


def _write_study(root: Path) -> None:
    config = config_to_mapping(micro_config(root / "plain"))
    shared = {name: value for name, value in config.items() if name not in ("output", "seed", "rounds", "method")}
    study = {
        "name": "tiny",
        "methods": {"deepfednas": {}, "cotrain": {}},
        "seeds": [0],
        "budgets": ["200000"],
        "run": {**shared, "compute": "60M"},
    }
    (root / "study.yaml").write_text(yaml.safe_dump(study))
    entry = make_entry(MICRO, supernet_architecture(MICRO))
    architecture = entry.architecture.to_json()
    for label, accuracy in (("deepfednas", 0.625), ("cotrain", 0.75)):
        measured = MeasuredNetwork(200_000, entry.macs, entry.params, 0.5, accuracy, 0.25, architecture)
        outcome = TrialResult(label, 0, 7, 60_000_000, 2000, 3000, 4.0, [measured], "a machine")
        write_outcome(root / "study" / "results" / f"{label}-seed0.json", outcome)


def _outcome(main: Callable[[Sequence[str]], object], *arguments: object) -> Outcome:
    """Call a command; return its code and all it printed but times."""
    outcome = called(main, *arguments)
    return Outcome(outcome.code, _TIMES.sub("", outcome.out), _TIMES.sub("", outcome.err))


def _loaded(world: World) -> Outcome:
    """Load the delivered subnet from Python; the outcome says which weights it has."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            state = load_subnet(world.root / "subnet").state_dict()
    except UserError as error:
        return Outcome(2, "", f"load_subnet: error: {error}\n")
    digest = hashlib.sha256(b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in state.items()))
    return Outcome(0, digest.hexdigest(), "")


Command = Callable[[World], Outcome]

_BUDGET = ("--flops-budget", "200K", "--json")

COMMANDS: dict[str, Command] = {
    "train-supernet": lambda world: _outcome(train_supernet, "--resume", world.run),
    "search-subnet": lambda world: _outcome(
        search_subnet, "--run", world.run, *_BUDGET, "--checkpoint", "newest"
    ),
    "the network of a search": lambda world: _outcome(
        search_subnet, "--run", world.search, "--architecture", world.search / "architecture.json",
        "--checkpoint", "newest", "--json",
    ),
    "the network of a subnet": lambda world: _outcome(
        search_subnet, "--run", world.run, "--architecture", world.root / "subnet" / "architecture.json", "--json"
    ),
    "score-subnet": lambda world: _outcome(
        score_subnet, "--space", world.root / "micro.yaml", world.root / "subnet" / "architecture.json", "--json"
    ),
    "a latency table": lambda world: _outcome(
        search_subnet, "--run", world.run, "--latency-table", world.root / "table.json",
        "--latency-budget", "20ms", "--json",
    ),
    "a space": lambda world: _outcome(search_subnet, "--space", world.root / "micro.yaml", *_BUDGET),
    "compare-methods": lambda world: _outcome(
        compare_methods, "--config", world.root / "study.yaml", "--output", world.root / "study"
    ),
    "load_subnet": _loaded,
}  # fmt: skip

#: Commands that take long unless they refuse a run at once.
REFUSING: dict[str, Command] = {
    "profile-device": lambda world: _outcome(
        profile_device, "--run", world.run, "--output", world.root / "measured.json", "--runtime", "torch"
    ),
    "validate-fitness": lambda world: _outcome(
        validate_fitness, "--run", world.run, "--checkpoint", "newest", "--output", world.root / "validated"
    ),
}

_RUN = ("config.yaml", "space.yaml", "cache.jsonl", "partition.json", "provenance.json", "digests.json")
_CHECKPOINT = ("state.json", "supernet.safetensors", "digests.json")

#: The files, and the commands that read each.
FILES: dict[str, tuple[str, ...]] = {
    **{f"plain/run/{name}": ("train-supernet", "search-subnet") for name in _RUN},
    **{
        f"plain/run/CHECKPOINT/{name}": ("train-supernet", "search-subnet")
        for name in (*_CHECKPOINT, "server.safetensors")
    },
    **{f"search/run/CHECKPOINT/{name}": ("the network of a search",) for name in _CHECKPOINT},
    "search/run/CHECKPOINT/BRANCH": ("the network of a search",),
    "search/run/architecture.json": ("the network of a search",),
    "search/run/accounting.json": ("the network of a search",),
    "subnet/subnet.safetensors": ("load_subnet",),
    "subnet/digests.json": ("load_subnet", "score-subnet", "the network of a subnet"),
    "subnet/architecture.json": ("score-subnet", "the network of a subnet"),
    "table.json": ("a latency table",),
    "study/results/cotrain-seed0.json": ("compare-methods",),
    "kept frontier": ("a space",),
}


@contextlib.contextmanager
def _damaged(path: Path, content: bytes | None) -> Iterator[None]:
    """Let a file hold something else, or be a folder, for a while."""
    whole = path.read_bytes()
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.rmdir() if content is None else path.unlink()
        path.write_bytes(whole)


def _file(world: World, name: str) -> Path:
    if name.endswith("BRANCH"):
        return next(world.path(name).parent.glob("branch-*"))
    return world.path(name)


def _check(found: Outcome, whole: Outcome, what: str) -> None:
    """Check that a command refused the damage in one line, or came to what it would have come to without it."""
    if found.code == 2:
        lines = found.err.splitlines()
        assert ": error: " in lines[-1], what
        assert len(lines) <= 1 + len(whole.err.splitlines()), (what, found.err)
        assert len(lines[-1]) < 1000, (what, lines[-1])
        assert found.out == "", what
    else:
        assert (found.code, found.out) == (whole.code, whole.out), what


@functools.cache
def _whole(world: World, command: str) -> Outcome:
    """What a command comes to where nothing is damaged."""
    return COMMANDS[command](world)


def _check_damages(world: World, name: str, draws: int, seed: int, every: int = 1) -> None:
    """Check some draws of every kind of damage, or of every second or third kind, others for every file."""
    path, generator = _file(world, name), np.random.default_rng(seed)
    whole = {command: _whole(world, command) for command in FILES[name]}
    assert all(outcome.code == 0 for outcome in whole.values()), whole
    content = path.read_bytes()
    contents: list[tuple[str, bytes | None]] = [("folder", None)]
    for kind, damage in list(damages_of(path).items())[list(FILES).index(name) % every :: every]:
        contents += [(kind, damage(content, generator)) for _ in range(draws)]
    for number, (kind, damaged) in enumerate(contents):
        command = FILES[name][number % len(FILES[name])]
        with _damaged(path, damaged):
            what = f"{command} with {name}: {kind} {number}"
            found = COMMANDS[command](world)
            _check(found, whole[command], what)
            if path.parent == world.run and found.code == 2 and number % 5 == 0:
                for refusing in REFUSING.values():
                    _check(refusing(world), whole[command], what)


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused_in_one_line_or_changes_nothing(world: World, name: str) -> None:
    _check_damages(world, name, draws=1, seed=0, every=2)


def test_what_is_delivered_has_digests_of_all_its_files(world: World) -> None:
    folder = world.root / "subnet"
    assert {path.name for path in folder.iterdir()} == {DIGESTS, *read_digests(folder)}
    for path in folder.iterdir():
        content = path.read_bytes()
        with _damaged(path, content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]), pytest.raises(UserError):
            check_folder(folder, complete=True)
    check_folder(folder, complete=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("name", FILES)
def test_more_damage_is_refused_in_one_line_or_changes_nothing(world: World, name: str, seed: int) -> None:
    _check_damages(world, name, draws=6, seed=seed)


@pytest.mark.parametrize(
    "name",
    ["table.json", "study/results/cotrain-seed0.json"],
)
def test_white_space_that_means_nothing_is_no_damage(world: World, name: str) -> None:
    path = world.path(name)
    command = COMMANDS[FILES[name][0]]
    whole = command(world)
    with _damaged(path, harmless(path.read_bytes())):
        assert command(world) == whole
    with _damaged(path, json.dumps(json.loads(path.read_bytes())).encode()):
        assert command(world) == whole
