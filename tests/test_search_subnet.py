import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Outcome, check_refused, run_main
from federation import arguments_of, micro_config, write_micro

from search.cli import main
from search.subnet import load_subnet, read_subnet_info
from supernet.space import load_space
from training.cli import main as train_main
from training.data.batches import plain_batches
from training.data.sources import load_images


class Command:
    """``search-subnet`` in a folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys, self.folder = capsys, folder

    def __call__(self, *arguments: object) -> Outcome:
        return run_main(main, self.capsys, *arguments)

    def json(self, *arguments: object) -> dict[str, Any]:
        outcome = self(*arguments, "--json")
        assert outcome.code == 0, outcome.err
        report: dict[str, Any] = json.loads(outcome.out)
        return report

    def error(self, *arguments: object) -> str:
        before = sorted(self.folder.rglob("*"))
        line = check_refused(self(*arguments), "search-subnet")
        assert sorted(self.folder.rglob("*")) == before
        return line


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(capsys, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits, long enough to be better than chance."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.raises(SystemExit) as caught:
        train_main(arguments_of(micro_config(folder, rounds=12)))
    assert caught.value.code == 0
    return folder / "run"


def test_a_space_is_searched_without_a_run(command: Command) -> None:
    space, _ = write_micro(command.folder)
    report = command.json("--space", space, "--flops-budget", "100K", "--params-budget", "0.01M")
    assert report["macs"] <= 100_000
    assert report["params"] <= 10_000
    assert report["limits"] == {"macs": 100_000, "params": 10_000}
    assert report["slack"] == {"macs": 100_000 - report["macs"], "params": 10_000 - report["params"]}
    assert report["certified"] is False
    assert "validation_accuracy" not in report


@pytest.mark.parametrize("budget", ["100K", "0.1M", "1e5", "100000"])
def test_budgets_read_as_people_write_them(command: Command, budget: str) -> None:
    space, _ = write_micro(command.folder)
    assert command.json("--space", space, "--flops-budget", budget)["limits"] == {"macs": 100_000}


def test_the_architecture_alone_is_written_for_a_space(command: Command) -> None:
    space, _ = write_micro(command.folder)
    output = command.folder / "found"
    report = command.json("--space", space, "--flops-budget", "100K", "--output", output)
    assert json.loads((output / "architecture.json").read_text()) == report["architecture"]
    assert [path.name for path in output.iterdir()] == ["architecture.json"]


def test_a_trained_subnet_is_extracted_calibrated_evaluated_and_written(command: Command, run: Path) -> None:
    output = command.folder / "subnet"
    report = command.json("--run", run, "--flops-budget", "1M", "--test", "--output", output)
    assert report["validation_accuracy"] > 0.3
    assert report["test_accuracy"] > 0.3
    network, info = load_subnet(output), read_subnet_info(output)
    test = load_images("digits", "data", "test", 8)
    with torch.inference_mode():
        hits = [(network(x).argmax(1) == y).sum() for x, y in plain_batches(test, 64, 8, info.normalisation)]
    assert sum(map(int, hits)) / len(test) == pytest.approx(report["test_accuracy"], abs=0.01)
    assert sum(parameter.numel() for parameter in network.parameters()) == report["params"]
    assert info.classes == tuple("0123456789")


def test_test_images_are_read_only_when_asked_for(command: Command, run: Path) -> None:
    assert "test_accuracy" not in command.json("--run", run, "--flops-budget", "1M")


def test_a_table_is_printed_for_people_with_the_next_command(command: Command, run: Path) -> None:
    outcome = command("--run", run, "--flops-budget", "1M", "--output", command.folder / "subnet")
    assert outcome.code == 0
    assert "validation accuracy" in outcome.out
    assert "1,000,000" in outcome.out
    assert f"load_subnet('{command.folder / 'subnet'}')" in outcome.err


def test_the_newest_checkpoint_can_be_asked_for(command: Command, run: Path) -> None:
    report = command.json("--run", run, "--flops-budget", "1M", "--checkpoint", "newest")
    assert report["round"] == 12


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--space", "mobilenet-cifra", "--flops-budget", "60M"), "unknown space 'mobilenet-cifra'; valid:"),
        (("--space", "mobilenet-tiny"), "give a limit: --flops-budget 60M"),
        (("--flops-budget", "60M"), "give either --space NAME (architecture only) or --run FOLDER"),
        (("--space", "mobilenet-tiny", "--run", "x", "--flops-budget", "60M"), "give either --space"),
        (("--space", "mobilenet-tiny", "--flops-budget", "60X"), "cannot read '60X' as a number"),
        (("--space", "mobilenet-tiny", "--flops-budget", "-60M"), "'-60M' is not a positive number"),
        (("--space", "mobilenet-tiny", "--flops-budget", "0"), "'0' is not a positive number"),
        (("--space", "mobilenet-tiny", "--flops-budget", "nan"), "cannot read 'nan' as a number"),
        (("--space", "mobilenet-tiny", "--params-budget", "10"), "no network of mobilenet-tiny has at most 10 parame"),
        (("--space", "mobilenet-tiny", "--flops-budget", "1M", "--test"), "--test needs trained weights"),
        (("--run", "nowhere", "--flops-budget", "60M"), "nowhere holds no run"),
        (("--run", "nowhere", "--flops-budget", "60M", "--classes", "3"), "--classes goes with --space"),
        (("--space", "mobilenet-tiny", "--flops-budget", "1M", "--seed", "-1"), "seed is -1"),
        (("--space", "mobilenet-tiny", "--flops-budget", "1M", "--fitness", "no.yaml"), "cannot read no.yaml"),
    ],
)
def test_bad_options_are_refused_in_one_line(command: Command, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in command.error(*arguments)


def test_an_unreachable_budget_names_the_smallest_network(command: Command) -> None:
    space = load_space("mobilenet-cifar")
    error = command.error("--space", space.name, "--flops-budget", "1M")
    assert "no network of mobilenet-cifar has at most 1,000,000 MACs; the smallest has 13,072,640 (13.07M)" in error


def test_an_output_that_is_taken_is_refused_before_the_search(command: Command, run: Path) -> None:
    output = command.folder / "taken"
    output.mkdir()
    (output / "file").write_text("mine")
    assert "is not an empty folder" in command.error("--run", run, "--flops-budget", "1M", "--output", output)


def test_a_run_with_an_altered_cache_is_refused(command: Command, run: Path) -> None:
    copy = command.folder / "run"
    shutil.copytree(run, copy)
    path = copy / "cache.jsonl"
    path.write_text(path.read_text().replace('"rho": 0.', '"rho": 1.'))
    assert "rho is 1." in command.error("--run", copy, "--flops-budget", "1M")


def test_a_run_whose_checkpoint_is_cut_short_is_refused(command: Command, run: Path) -> None:
    copy = command.folder / "run"
    shutil.copytree(run, copy)
    for path in copy.glob("checkpoints/*/supernet.safetensors"):
        path.write_bytes(path.read_bytes()[:1000])
    assert "is damaged: supernet.safetensors" in command.error("--run", copy, "--flops-budget", "1M")
