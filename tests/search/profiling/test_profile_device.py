import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Outcome, check_refused, run_main
from helpers.networks.latency import names_of
from helpers.processes import PATIENCE, wait_until
from helpers.repository import IMPORTED_FROM
from helpers.runs.federation import micro_space, write_space

from fedpareto.cache.costs.latency.cost import read_latency
from fedpareto.cache.costs.latency.table import read_table
from fedpareto.search.cli import main as search_main
from fedpareto.search.profiling.cli import main
from fedpareto.supernet.common.formats.json_text import unsealed
from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.genes import encode

FEW = micro_space(name="micro", kernels=(3,))
_QUICK = ("--runtime", "torch", "--interval", "0.5")


class Command:
    """``profile-device`` of a few blocks, in a folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys, self.folder = capsys, folder
        self.space, self.output = write_space(folder, FEW), folder / "table.json"

    def __call__(self, *arguments: object) -> Outcome:
        return run_main(main, self.capsys, "--output", self.output, *arguments)

    def error(self, *arguments: object) -> str:
        before = sorted(self.folder.rglob("*"))
        line = check_refused(self(*arguments), "profile-device")
        assert sorted(self.folder.rglob("*")) == before
        return line

    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.output.read_text())
        return content


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(capsys, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_a_table_is_measured_validated_and_searched_with(command: Command, runtime: str) -> None:
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime")
    # The exporter takes its time for whole networks.
    validated = ("--validate", 4) if runtime == "torch" else ()
    arguments = ("--runtime", runtime, "--interval", 0.5, "--batch", 2, *validated)
    outcome = command("--space", command.space, *arguments)
    assert outcome.code == 0, outcome.err
    content = command.content()
    assert sorted(content["blocks"]) == sorted(content["spread"]) == names_of(FEW)
    assert all(low <= content["blocks"][name] <= high for name, (low, high, _) in content["spread"].items())
    assert sum(time > 0 for time in content["blocks"].values()) > len(content["blocks"]) / 2
    measured = content["measured"]
    assert (measured["space"], measured["machine"], measured["device"]) == ("micro", machine(), "cpu")
    assert (measured["runtime"], measured["threads"], measured["batch"]) == (runtime, 1, 2)
    assert runtime in measured["versions"]
    assert f"{len(names_of(FEW))} blocks of micro" in outcome.out
    assert ("4 whole networks: mean absolute error " in outcome.out) == bool(validated)
    assert ("correction: " in outcome.out) == bool(validated)
    assert sorted(path.name for path in command.folder.iterdir()) == ["micro.yaml", "table.json"]
    _check_next_command(command, outcome)


def _check_next_command(command: Command, outcome: Outcome) -> None:
    """Check that the command named at the end finds a network within the budget it names."""
    name, *arguments = outcome.err.rsplit("next: ", maxsplit=1)[1].split()
    assert name == "search-subnet"
    found = run_main(search_main, command.capsys, *arguments, "--json")
    assert found.code == 0, found.err
    report = json.loads(found.out)
    assert report["certified"] is True
    assert report["latency"] <= report["limits"]["latency"]
    from fedpareto.supernet.architecture import architecture_from_json

    genes = encode(FEW, architecture_from_json(report["architecture"]))[None]
    assert report["latency"] == pytest.approx(read_latency(command.output, FEW).of(FEW, genes)[0])


def test_an_existing_table_is_validated_without_being_measured_again(command: Command) -> None:
    assert command("--space", command.space, *_QUICK).code == 0
    before = command.content()
    assert "validation" not in before
    outcome = command("--space", command.space, *_QUICK, "--validate", 5)
    assert outcome.code == 0, outcome.err
    after = command.content()
    assert {name: after[name] for name in before if name != "digest"} == unsealed(before, "before")
    assert after["validation"]["networks"] == 5
    assert "measuring blocks" not in outcome.err
    for field, given in (("runtime", ("--interval", 0.5)), ("threads", (*_QUICK, "--threads", 2))):
        line = command.error("--space", command.space, "--validate", 5, *given)
        assert f"error: {field}: {command.output} was measured with " in line
    line = command.error("--space", "mobilenet-tiny", *_QUICK, "--validate", 5)
    assert f"error: space: {command.output} was measured with micro, but mobilenet-tiny is wanted here; " in line
    command.output.write_text(json.dumps({"format": "fedpareto-latency-table", "version": 1, "blocks": {}}))
    assert "was not measured by profile-device" in command.error("--space", command.space, *_QUICK, "--validate", 5)


def test_a_table_is_replaced_when_asked_for(command: Command) -> None:
    command.output.write_text("mine")
    assert "exists; pass --overwrite to replace it" in command.error("--space", command.space, *_QUICK)
    assert command.output.read_text() == "mine"
    assert command("--space", command.space, *_QUICK, "--overwrite").code == 0
    assert read_table(command.output).measured is not None


#: Runs the command from the tree that is tested, whether or not it is the one that is installed.
_COMMAND = "import sys; from fedpareto.search.profiling.cli import main; main(sys.argv[1:])"


@pytest.mark.slow
def test_a_killed_measurement_goes_on_where_it_was(command: Command) -> None:
    space = write_space(command.folder, micro_space())
    names, partial = names_of(micro_space()), command.folder / "table.json.partial"
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "--space", space, "--output", command.output, *_QUICK[:2]],
        env={**os.environ, "PYTHONPATH": str(IMPORTED_FROM)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until(partial.exists, process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert not command.output.exists()
    kept = read_table(partial)
    assert 0 < len(kept.blocks) < len(names)
    line = command.error("--space", space, *_QUICK)
    assert f"error: interval: {partial} was measured with 0.02, but 0.5 is wanted here; repeat the command" in line
    assert command("--space", space, *_QUICK[:2]).code == 0
    table = read_table(command.output)
    # What was measured before keeps its runs and its place.
    assert {name: table.spread[name][2] for name in kept.blocks} == {name: kept.spread[name][2] for name in kept.blocks}
    assert table.references[: len(kept.references)] == kept.references
    assert sorted(table.blocks) == names
    assert not partial.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--space", "mobilenet-cifra"), "unknown space 'mobilenet-cifra'; valid:"),
        ((), "give either --space NAME or --run FOLDER"),
        (("--space", "mobilenet-tiny", "--run", "x"), "give either --space NAME or --run FOLDER"),
        (("--run", "nowhere"), "nowhere"),
        (("--run", "nowhere", "--classes", "3"), "--classes goes with --space"),
        (("--space", "mobilenet-tiny", "--threads", "0"), "--threads is 0; it must be at least 1"),
        (("--space", "mobilenet-tiny", "--batch", "0"), "--batch is 0; it must be at least 1"),
        (("--space", "mobilenet-tiny", "--batch", "-2"), "--batch is -2; it must be at least 1"),
        (("--space", "mobilenet-tiny", "--seed", "-1"), "--seed is -1; it must be at least 0"),
        (("--space", "mobilenet-tiny", "--validate", "1"), "--validate is 1; it must be at least 4 networks"),
        (("--space", "mobilenet-tiny", "--interval", "0"), "--interval is 0.0; it must be above 0 and below 1"),
        (("--space", "mobilenet-tiny", "--interval", ".nan"), "--interval is .nan; it must be a finite number"),
        (("--space", "mobilenet-tiny", "--runtime", "tflite"), "runtime"),
        (("--space", "mobilenet-tiny", "--device", "tpu"), "device"),
        (("--space", "mobilenet-tiny", "--output", "."), ". is a folder; name a file in it"),
    ],
)
def test_bad_input_is_one_line_before_any_work(command: Command, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in command.error(*arguments)


def test_a_missing_extra_is_named_with_the_line_that_installs_it(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            line = command.error("--space", command.space)
            assert f"{name} is not installed; install it with: pip install 'fedpareto[export]'" in line


def test_a_gpu_that_is_not_there_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert "device 'cuda' is not on this machine; it has: cpu" in command.error(
        "--space", "mobilenet-tiny", "--device", "cuda"
    )


def test_the_classes_of_a_classifier_are_measured(command: Command) -> None:
    assert command("--space", command.space, "--classes", 7, *_QUICK).code == 0
    assert sorted(command.content()["blocks"]) == names_of(dataclasses.replace(FEW, classes=7))
