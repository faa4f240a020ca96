"""Runs whose folder, images, inputs or working folder are no longer what they were when the run was started."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.commands import Outcome, check_refused, run_main
from helpers.networks.latency import random_times, write_table
from helpers.runs.federation import MICRO, micro_cache, micro_config, micro_space, write_micro, write_two_classes
from helpers.runs.simulation import smallest

import fedpareto.search.cli
import fedpareto.search.profiling.cli
import fedpareto.search.ranking.cli
from fedpareto.cache.cache_file import write_cache
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.training.cli import main
from fedpareto.training.config.inputs import inputs, named
from fedpareto.training.config.methods import DecNasConfig
from fedpareto.training.config.run import config_to_mapping
from fedpareto.training.runs.folder import read_run_config

_LAST = "checkpoints/round-000002/supernet.safetensors"


class Place:
    """Folders to work in, and the commands as they are typed there."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._capsys, self._monkeypatch = folder, capsys, monkeypatch

    def go(self, name: str) -> Path:
        """Make a folder if there is none, and work in it."""
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._monkeypatch.chdir(self.folder / name)
        return self.folder / name

    def train(self, *arguments: object) -> Outcome:
        return run_main(main, self._capsys, *arguments)

    def search(self, *arguments: object) -> Outcome:
        return run_main(fedpareto.search.cli.main, self._capsys, *arguments)

    def validate(self, *arguments: object) -> Outcome:
        few = ("--subnets", 8, "--bands", 2, "--band-width", 0.9, "--images", 10)
        return run_main(fedpareto.search.ranking.cli.main, self._capsys, *arguments, *few)


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, capsys, monkeypatch)


def _succeeded(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.err
    return outcome


def _write_architecture(name: str, architecture: Architecture) -> dict[str, str]:
    Path(name).write_text(json.dumps(architecture.to_json()))
    return {"architecture": name}


def _configuration(method: str) -> dict[str, Any]:
    """Write every file a run of a method can name into the working folder; return what names them, all relative."""
    write_micro(Path())
    write_table(Path("table.json"), random_times(MICRO))
    Path("clients.jsonl").write_text('{"macs": "10M", "latency": "1000ms"}\n' * 6)
    settings: dict[str, Any] = {
        "decnas": DecNasConfig(budget="110K", step=0.15, drop_after=1, least_rounds=1, most_rounds=1)
    }
    config = micro_config(Path(), rounds=2, method=method, **(settings if method == "decnas" else {}))
    mapping = config_to_mapping(config)
    mapping |= {"space": "micro.yaml", "cache": "cache.jsonl", "output": "runs/mine"}
    mapping["clients"] |= {"file": "clients.jsonl", "latency_table": "table.json"}
    if method == "deepfednas":
        # Its cache is built by the run.
        Path("fitness.yaml").write_text("block_penalty: 1.0\n")
        mapping |= {"cache": None, "fitness": "fitness.yaml"}
    else:
        start = supernet_architecture(MICRO) if method == "decnas" else smallest()
        mapping[method] |= _write_architecture("network.json", start)
    return mapping


# What lies in a run's folder: a cache, a network of its own, decisions, networks of a search.
@pytest.mark.parametrize(
    "method", ["deepfednas", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fedavg", "dfnas", "decnas"))]
)
def test_a_run_needs_nothing_but_its_own_folder_wherever_that_is(place: Place, method: str) -> None:
    start = place.go("start")
    Path("go.yaml").write_text(yaml.safe_dump(_configuration(method)))
    _succeeded(place.train("--config", "go.yaml"))
    # What it was started with is gone, its folder is elsewhere under another name, and so is the user.
    (place.folder / "elsewhere").mkdir()
    (start / "runs/mine").rename(place.folder / "elsewhere/yours")
    shutil.rmtree(start)
    place.go("deep/in/the")
    run = Path("../../../elsewhere/yours")
    config, absolute = read_run_config(run), place.folder / "elsewhere/yours"
    paths = {name: path for name in inputs() if (path := named(config, name)) is not None}
    assert paths == {name: str(absolute / inputs()[name]) for name in paths}
    assert len(paths) == (4 if method == "deepfednas" else 5)
    # It runs again with the same bytes,
    _succeeded(place.train("--config", run / "config.yaml", "--output", "again"))
    newest = sorted(path.relative_to(run) for path in run.glob("checkpoints/*/supernet.safetensors"))[-1]
    assert (Path("again") / newest).read_bytes() == (run / newest).read_bytes()
    # is finished, goes on, and is searched; suggested commands name it where it is.
    again = _succeeded(place.train("--resume", run))
    assert f"next: search-subnet --run {run} " in again.err
    longer = _succeeded(place.train("--resume", run, "--rounds", 3))
    assert f"run: {run}\n" in longer.err
    _succeeded(place.search("--run", run, "--flops-budget", "140K", "--output", "subnet"))
    # Moved and resumed, it may be moved again.
    place.go("deep").parent.joinpath("elsewhere/yours").rename(place.folder / "third")
    _succeeded(place.train("--resume", "../third", "--rounds", 4))


@pytest.mark.slow
def test_an_edited_file_changes_nothing_and_is_refused_where_it_is_named_again(place: Place) -> None:
    place.go("start")
    Path("go.yaml").write_text(yaml.safe_dump(_configuration("fedavg")))
    _succeeded(place.train("--config", "go.yaml"))
    assert "is finished" in _succeeded(place.train("--resume", "runs/mine", "--config", "go.yaml")).err
    for name in ("clients.jsonl", "table.json", "micro.yaml", "cache.jsonl", "network.json"):
        text = Path(name).read_text()
        Path(name).write_text("nonsense: [")
        line = check_refused(place.train("--resume", "runs/mine", "--config", "go.yaml"), "train-supernet")
        assert name in line
        assert "is finished" in _succeeded(place.train("--resume", "runs/mine")).err
        Path(name).write_text(text)


@pytest.fixture
def run(place: Place) -> Path:
    """A finished run on images in ``start/images``, named relative to ``start``."""
    place.go("start")
    write_two_classes(Path("images"))
    mapping = config_to_mapping(micro_config(Path(), rounds=1))
    two = micro_space(classes=2)
    write_cache(Path("cache.jsonl"), micro_cache(two))
    mapping |= {"space": "micro.yaml", "cache": "cache.jsonl", "output": "run"}
    mapping["data"] |= {"name": "imagefolder", "root": "images"}
    mapping["clients"] |= {"count": 2, "per_round": 2}
    mapping["client"] |= {"batch_size": 8}
    mapping["partition"] |= {"scheme": "iid"}
    Path("go.yaml").write_text(yaml.safe_dump(mapping))
    _succeeded(place.train("--config", "go.yaml"))
    return place.folder / "start/run"


def test_images_are_found_from_any_working_folder(place: Place, run: Path) -> None:
    place.go("elsewhere")
    _succeeded(place.train("--resume", run))
    _succeeded(place.search("--run", "../start/run", "--flops-budget", "140K", "--test"))
    assert read_run_config(run).data.root == str(place.folder / "start/images")


@pytest.mark.slow
def test_moved_images_are_named_once_and_remembered(place: Place, run: Path) -> None:
    images = (place.folder / "start/images").rename(place.folder / "disk")
    place.go("elsewhere")
    budget = ("--flops-budget", "140K")
    for command, arguments in (
        (place.train, ("--resume", run)),
        (place.train, ("--resume", run, "--rounds", 2)),
        (place.search, ("--run", run, *budget)),
        (place.validate, ("--run", run)),
    ):
        line = command(*arguments).err.splitlines()[-1]
        assert f"if the images of {run} have moved, add --data.root FOLDER" in line
        assert str(place.folder / "start/images") in line
    # Where images are read, they may be named; the next command says so too.
    found = _succeeded(place.search("--run", run, *budget, "--data.root", "../disk", "--test"))
    assert f"next: search-subnet --run {run} --data.root ../disk --flops-budget 140K" in found.err
    ranked = _succeeded(place.validate("--run", run, "--data.root", images))
    assert f" --data.root {images} --fit" in ranked.err
    assert read_run_config(run).data.root == str(place.folder / "start/images")
    # A finished run remembers, and no command has to be told any more.
    assert "is finished" in _succeeded(place.train("--resume", run, "--data.root", "../disk")).err
    assert read_run_config(run).data.root == str(images)
    _succeeded(place.search("--run", run, *budget))
    _succeeded(place.train("--resume", run, "--rounds", 2))
    images.rename(place.folder / "tape")
    _succeeded(place.train("--resume", run, "--rounds", 3, "--data.root", "../tape"))
    assert read_run_config(run).data.root == str(place.folder / "tape")


def test_a_finished_run_remembers_nothing_but_places(place: Place, run: Path) -> None:
    before = yaml.safe_load((run / "config.yaml").read_text())
    shutil.copytree(place.folder / "start/images", place.folder / "copy")
    _succeeded(place.train("--resume", run, "--data.root", place.folder / "copy", "--client.batch-size", 4))
    after = yaml.safe_load((run / "config.yaml").read_text())
    before["data"]["root"] = str(place.folder / "copy")
    assert after == before


def test_other_images_are_told_by_their_digest(place: Place, run: Path) -> None:
    other = write_two_classes(place.folder / "other", seed=1)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for command, arguments in (
        (place.train, ("--resume", run)),
        (place.search, ("--run", run, "--flops-budget", "140K")),
        (place.validate, ("--run", run)),
    ):
        line = command(*arguments, "--data.root", other).err.splitlines()[-1]
        assert f"the images in {other} are not those {run} was started with; restore them or, if they are" in line
        assert line.endswith("add --data.root FOLDER")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path in files} == files


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--space", "mobilenet-tiny", "--flops-budget", "1M", "--data.root", "x"), "but no run is given"),
        (
            ("--run", "run", "--flops-budget", "1M", "--data.root", ""),
            "--data.root is empty",
        ),
    ],
)
def test_a_folder_of_images_needs_a_run_and_a_name(place: Place, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in check_refused(place.search(*arguments), "search-subnet")


def test_a_profile_passes_on_where_the_images_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ("--output", tmp_path / "table.json", "--space", "mobilenet-tiny", "--data.root", "x")
    line = check_refused(run_main(fedpareto.search.profiling.cli.main, capsys, *arguments), "profile-device")
    assert "--data.root is x, but no run is given whose images could be there: give --run FOLDER" in line
