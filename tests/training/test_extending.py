"""Parts of somebody else, chosen by name: the package of docs/extending.md, and mistakes in such parts."""

import functools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.commands import check_refused, run_main
from helpers.distributions import write_distribution
from helpers.repository import ROOT
from helpers.runs.federation import arguments_of, micro_config, read_metrics
from helpers.runs.simulation import Recorder

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.aggregation.protocol import register_aggregator
from fedpareto.training.aggregation.weighted_average import WeightedAverage
from fedpareto.training.cli import main
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.registries import AGGREGATORS, DATA_SETS, SAMPLERS, TRACKERS
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.data.sources import register_data_source, source
from fedpareto.training.methods.sampling import register_sampler, uniform
from fedpareto.training.runs.state import RunState
from fedpareto.training.trackers.protocol import register_tracker

_PAGE = ROOT / "docs" / "extending.md"

_OPTIONS = (
    *("--method", "slim", "--slim.share", "0.4", "--clients.sampler", "in-turn", "--data.name", "squares"),
    *("--server.aggregation", "halfway", "--tracking.also", "lines"),
)


@functools.cache
def _blocks() -> dict[str, str]:
    """The files on the page by their names."""
    text = _PAGE.read_text(encoding="utf-8")
    return dict(re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the package of the page is installed."""
    project = tomllib.loads(_blocks()["pyproject.toml"])["project"]
    modules = {name: text for name, text in _blocks().items() if name.endswith(".py")}
    folder = tmp_path_factory.mktemp("site")
    return write_distribution(folder, project["name"], project["entry-points"], {"slim/__init__.py": "", **modules})


def _run(package: Path, program: Sequence[object], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, program), *map(str, arguments)]
    path = os.pathsep.join(map(str, (package, ROOT)))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


_COMMAND = ("-c", "from fedpareto.training.cli import main; main()")


def _weights(run: Path) -> bytes:
    return (run / "checkpoints" / "round-000003" / "supernet.safetensors").read_bytes()


def test_the_command_on_the_page_names_every_part_of_it() -> None:
    text = " ".join(_PAGE.read_text(encoding="utf-8").replace("\\\n", "").split())
    assert f"train-supernet {' '.join(_OPTIONS)} ```" in text
    parts = tomllib.loads(_blocks()["pyproject.toml"])["project"]["entry-points"]
    assert all(name in _OPTIONS for group in parts.values() for name in group)
    assert set(parts) == {f"fedpareto.{kind}" for kind in ("methods", "samplers", "data", "trackers", "aggregators")}


@pytest.mark.slow
def test_the_package_of_the_page_trains_and_is_resumed_to_the_same_bytes(package: Path, tmp_path: Path) -> None:
    arguments = arguments_of(micro_config(tmp_path, cache=None))
    run, again = tmp_path / "run", tmp_path / "again"
    done = _run(package, _COMMAND, *arguments, *_OPTIONS)
    assert done.returncode == 0, done.stderr
    drawn = [[client["client"] for client in record["clients"]] for record in read_metrics(run)]
    assert drawn == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
    assert [line.split()[0] for line in (run / "lines.txt").read_text().splitlines()] == ["1", "2", "3"]
    assert yaml.safe_load((run / "space.yaml").read_text())["classes"] == 2
    largest = max(client["macs"] for record in read_metrics(run) for client in record["clients"])
    assert largest <= 0.4 * max(probe["macs"] for probe in read_metrics(run)[-1]["probes"])
    # The mean itself is another supernet than halfway to it.
    done = _run(package, _COMMAND, *arguments, *_OPTIONS, "--server.aggregation", "mean", "--output", tmp_path / "mean")
    assert done.returncode == 0, done.stderr
    assert _weights(tmp_path / "mean") != _weights(run)
    # Stopped after its second round.
    done = _run(package, _COMMAND, *arguments, *_OPTIONS, "--output", again, "--checkpoint.keep", 9)
    assert done.returncode == 0, done.stderr
    for path in (again / "checkpoints").glob("round-000003*"):
        path.rename(tmp_path / path.name)
    done = _run(package, _COMMAND, "--resume", again)
    assert done.returncode == 0, done.stderr
    assert _weights(again) == _weights(run)


@pytest.mark.slow
def test_the_script_of_the_page_does_the_same(package: Path, tmp_path: Path) -> None:
    arguments = (*arguments_of(micro_config(tmp_path, cache=None)), *_OPTIONS)
    uninstalled = tmp_path / "modules"
    for name, text in {"slim/__init__.py": "", **_blocks()}.items():
        (uninstalled / name).parent.mkdir(parents=True, exist_ok=True)
        (uninstalled / name).write_text(text, encoding="utf-8")
    done = _run(uninstalled, [uninstalled / "script.py"], *arguments)
    assert done.returncode == 0, done.stderr
    assert _run(package, _COMMAND, *arguments, "--output", tmp_path / "other").returncode == 0
    assert _weights(tmp_path / "other") == _weights(tmp_path / "run")


def test_help_lists_what_is_installed_and_loads_no_torch_for_it(package: Path) -> None:
    looked_at = "finally: print({name: name in sys.modules for name in ('slim.spec', 'slim.method', 'torch')})"
    program = f"import sys; from fedpareto.training.cli import main\ntry: main(['--help'])\n{looked_at}"
    done = _run(package, ("-c", program))
    told = " ".join(done.stdout.split())
    assert "slim (a network a client, well below what it can run)." in told
    assert "the method slim: --slim.share SHARE of the MACs of the largest network that a client could run" in told
    assert "Others here: in-turn." in told
    assert "Others here: squares." in told
    assert "Others here: halfway." in told
    assert "Others here: lines." in told
    assert "{'slim.spec': True, 'slim.method': False, 'torch': False}" in told


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            ("--clients.sampler", "unifrom"),
            "unknown client sampler 'unifrom'; valid: uniform (did you mean 'uniform'?)",
        ),
        (
            ("--data.name", "digit"),
            "unknown data set 'digit'; valid: arrays, cifar10, cifar100, clientfolders, digits, huggingface, "
            "imagefolder, leaf, npz, table, webdataset (did you",
        ),
        (
            ("--server.aggregation", "medain"),
            "unknown aggregator 'medain'; valid: clipped, krum, mean, median, trimmed (did you mean 'median'?)",
        ),
        (("--tracking.also", "lines"), "unknown tracker 'lines'; valid: "),
        (("--method", "fedpreto"), "it must be one of 'fedpareto', 'deepfednas'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, ...], message: str
) -> None:
    line = check_refused(run_main(main, capsys, *arguments_of(micro_config(tmp_path)), *option), "train-supernet")
    assert message in line
    assert "did you mean" in line or "tracking" in option[0]
    assert not (tmp_path / "run").exists()


def test_a_private_run_has_the_draw_and_the_average_that_its_account_is_of() -> None:
    private = PrivacyConfig(clip=1.0)
    with pytest.raises(UserError, match=r"clients\.sampler is mine with privacy\.clip"):
        RunConfig(privacy=private, clients=ClientsConfig(sampler="mine"))
    with pytest.raises(UserError, match=r"server\.aggregation is mine with privacy\.clip"):
        RunConfig(privacy=private, server=ServerConfig(aggregation="mine"))
    assert RunConfig(privacy=private).clients.sampler == "uniform"


@pytest.fixture
def sampled() -> Iterator[list[int]]:
    """Clients that the sampler ``mine`` draws."""
    drawn: list[int] = []

    @register_sampler("mine")
    def mine(
        available: Sequence[int], per_round: int, generator: np.random.Generator, state: RunState
    ) -> Sequence[int]:
        assert (list(available), per_round, state.round) == (list(range(6)), 3, 0)
        assert isinstance(generator, np.random.Generator)
        return drawn

    yield drawn
    SAMPLERS.remove("mine")


@pytest.mark.parametrize("drawn", [[], [1, 1], [6]], ids=str)
def test_a_sampler_that_draws_what_is_not_there_ends_the_run_in_one_line(
    sampled: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[int]
) -> None:
    sampled += drawn
    outcome = run_main(main, capsys, *arguments_of(micro_config(tmp_path)), "--clients.sampler", "mine")
    assert outcome.code == 2
    assert f"the client sampler mine drew {drawn}; it must draw distinct clients, 3 of [0, 1" in outcome.err


def test_names_that_are_taken_are_refused() -> None:
    with pytest.raises(UserError, match="there is another client sampler 'uniform'; give yours another name"):
        register_sampler("uniform")(functools.partial(uniform))
    with pytest.raises(UserError, match="there is another aggregator 'mean'"):
        register_aggregator("mean")(functools.partial(WeightedAverage))
    with pytest.raises(UserError, match="there is another data set 'digits'"):
        register_data_source("digits", source("imagefolder"))


def test_what_is_registered_is_what_is_used() -> None:
    digits, tracker = source("digits"), register_tracker("mine")(lambda context: Recorder())
    assert register_data_source("mine", digits) is digits
    try:
        assert DATA_SETS.get("mine") is digits
        assert TRACKERS.get("mine") is tracker
    finally:
        DATA_SETS.remove("mine")
        TRACKERS.remove("mine")
    assert AGGREGATORS.get("mean") is WeightedAverage
    assert SAMPLERS.get("uniform") is uniform
