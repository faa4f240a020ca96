"""``search-subnet --architecture``: no search, and all that follows one."""

import json
from pathlib import Path

import pytest
from helpers.runs.federation import MICRO, finished_run
from helpers.runs.search_command import Searching

from fedpareto.fitness.score import score
from fedpareto.search.subnet import load_subnet, read_subnet_info
from fedpareto.supernet.architecture import architecture_from_json
from fedpareto.supernet.genes import encode


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Searching:
    return Searching(capsys, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits, long enough to be better than chance."""
    # The largest network in every round: so few rounds do not grow to it.
    return finished_run(tmp_path_factory.mktemp("run"), rounds=12, method="deepfednas")


@pytest.fixture
def given(command: Searching) -> Path:
    """The file of a network that no search of the micro space answers with."""
    path = command.folder / "given.json"
    path.write_text(str(architecture_from_json(_GIVEN)))
    return path


_GIVEN = {
    "family": "mobilenet", "resolution": 8, "stem_width": 8,
    "stages": [
        {"width": 16, "blocks": [{"kernel": 5, "expand": 2}, {"kernel": 3, "expand": 3}]},
        {"width": 24, "blocks": [{"kernel": 5, "expand": 3}]},
    ],
}  # fmt: skip


def test_a_given_architecture_is_extracted_calibrated_evaluated_and_written(
    command: Searching, run: Path, given: Path
) -> None:
    output = command.folder / "subnet"
    report = command.json("--run", run, "--architecture", given, "--test", "--output", output)
    assert report["architecture"] == _GIVEN == json.loads((output / "architecture.json").read_text())
    (macs,) = score(MICRO, encode(MICRO, architecture_from_json(_GIVEN))).macs
    assert report["macs"] == macs == read_subnet_info(output).report["macs"]
    assert (report["solver"], report["certified"], report["given"]) == ("given", False, str(given))
    assert report["limits"] == report["slack"] == {}
    assert report["calibration"]["images"] > 0
    assert 0 <= report["test_accuracy"] <= 1
    assert sum(parameter.numel() for parameter in load_subnet(output).parameters()) == report["params"]


def test_a_given_architecture_is_exported(command: Searching, run: Path, given: Path) -> None:
    report = command.json(
        *("--run", run, "--architecture", given, "--export", "torchscript", "--output", command.folder / "subnet")
    )
    assert Path(report["export"]["file"]).is_file()


def test_a_given_architecture_is_said_to_be_that_with_how_to_ask_again(
    command: Searching, run: Path, given: Path
) -> None:
    outcome = command("--run", run, "--architecture", given, "--checkpoint", "newest")
    assert outcome.code == 0
    assert f"given by {given}, not searched" in outcome.out
    assert "within the limits" not in outcome.out
    asked = f"search-subnet --run {run} --architecture {given} --checkpoint newest"
    assert f"next: {asked} --test --output subnet" in outcome.err
    outcome = command(*asked.split()[1:], "--output", command.folder / "subnet")
    assert f"next: {asked} --export onnx --output " in outcome.err


@pytest.mark.parametrize(
    "option",
    [
        "--flops-budget 60M", "--params-budget 2M", "--size-budget 4MB", "--memory-budget 2MB", "--min-fitness 5",
        "--latency-budget 5ms", "--latency-table t.json", "--targets t.yaml", "--fitness f.yaml", "--plot p.svg",
        "--report p.html",
    ],
)  # fmt: skip
def test_what_is_about_a_search_does_not_go_with_a_given_architecture(
    command: Searching, run: Path, given: Path, option: str
) -> None:
    words = f"{option.split(maxsplit=1)[0]} does not go with --architecture, which leaves nothing to search"
    assert words in command.error("--run", run, "--architecture", given, *option.split())


def test_a_given_architecture_that_is_none_is_refused_in_one_line(command: Searching, run: Path, given: Path) -> None:
    assert "give --run FOLDER" in command.error("--space", "mobilenet-tiny", "--architecture", given)
    assert "batch is 0" in command.error("--run", run, "--architecture", given, "--batch", "0")
    assert "cannot read no.json" in command.error("--run", run, "--architecture", "no.json")
    text = given.read_text()
    given.write_text("{")
    assert "given.json is not valid JSON" in command.error("--run", run, "--architecture", given)
    given.write_text(text.replace('"width": 16', '"width": 17'))
    error = command.error("--run", run, "--architecture", given)
    assert "given.json: architecture is not in micro: stages[0].width is 17; allowed: 8, 16" in error
