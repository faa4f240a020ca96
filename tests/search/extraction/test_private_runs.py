"""Subnets of private runs: what is taken of clients' images, what is refused, what is said to be covered."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs.flower import LocalLink, flower_config, hurry, trained
from helpers.trust.private import client_images, federation_of, hold_supernet_still

from fedpareto.search.api import open_run
from fedpareto.search.cli import main
from fedpareto.search.extraction.opened_run import Extraction, opened_run
from fedpareto.search.query.private_runs import coverage_report
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.flower.federation import UnaskedFederation
from fedpareto.training.evaluation.evaluator import NoEvaluator
from fedpareto.training.runs.folder import read_run_cache, read_space
from fedpareto.training.session import run_session

_PRIVATE = PrivacyConfig(clip=1.0, noise=1.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two withheld runs and an exact one of the same supernet; the second differs in a client's images."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        hold_supernet_still(patch)
        for name, seed in (("one", 0), ("other", 50), ("exact", 0)):
            statistics: Any = "exact" if name == "exact" else "withheld"
            config = federation_of(folder / name, client_images(seed), statistics)
            run_session(config, None, ends_process=False)
            found[name] = Path(str(config.output))
    return found


def _searched(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    """Run the command; return its exit code, its JSON and what it told people."""
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return int(str(caught.value.code or 0)), json.loads(out) if out else {}, " ".join(err.split())


def _extracted(run: Path, *, exact: bool) -> tuple[Tensors, Any, dict[str, Any]]:
    """Return a subnet's tensors, its normalisation and its report."""
    opened = opened_run(run, read_space(run), "newest", None, exact=exact)
    entry = read_run_cache(run, opened.space).entries[0]
    made = opened.extract(entry, Extraction(exact=exact), {})
    return made.network.state_dict(), made.info.normalisation, dict(made.info.report)


def _same(first: Tensors, second: Tensors) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_subnet_is_the_same_whatever_images_a_client_has(runs: dict[str, Path]) -> None:
    (one, by_one, report), (other, by_other, _) = (_extracted(runs[name], exact=False) for name in ("one", "other"))
    assert _same(one, other)
    assert by_one == by_other
    assert report["calibration"] == {"method": "validation", "batches": 1, "images": 32}
    assert report["privacy"] == {"covered": True, "words": "(ε, δ) covers this network"}


def test_exact_statistics_tell_clients_images_apart_and_are_not_covered(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (one, _, report), (other, _, _) = (_extracted(runs[name], exact=True) for name in ("one", "other"))
    assert not _same(one, other)
    assert report["calibration"]["method"] == "pooled"
    words = "(ε, δ) does not cover this network: calibrated on clients' images"
    assert report["privacy"] == {"covered": False, "words": words}
    assert "are exact: (ε, δ) does not cover them" in " ".join(capsys.readouterr().err.split())


def test_what_a_run_began_with_is_said_not_to_be_covered() -> None:
    config = RunConfig(privacy=_PRIVATE, init="elsewhere")
    told = coverage_report(config, {"calibration": {"method": "none"}}, exact=False)["privacy"]["words"]
    assert told == "(ε, δ) covers this network, apart from what the supernet it began with was trained on"


def test_an_exact_run_is_calibrated_on_clients_images_and_says_so(runs: dict[str, Path]) -> None:
    report = _extracted(runs["exact"], exact=False)[2]
    assert report["calibration"]["method"] == "pooled"
    assert not report["privacy"]["covered"]
    assert "normalised by clients' pixels, calibrated on clients' images" in report["privacy"]["words"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--finetune-epochs", 1), "leave out --finetune-epochs, or accept what (ε, δ) does not cover with --exact-"),
        (("--calibration", "pooled"), "--calibration pooled takes exact statistics of clients' images, and"),
        (("--calibration", "federated"), "--calibration federated takes exact statistics of clients' images, and"),
    ],
)
def test_exact_statistics_are_refused_unless_asked_for(
    runs: dict[str, Path], options: tuple[object, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--run", runs["one"], "--flops-budget", "1M", "--output", tmp_path / "subnet", *options)
    code, _, told = _searched(capsys, *asked)
    assert code == 2
    assert words in told
    assert not (tmp_path / "subnet").exists()
    code, report, told = _searched(capsys, *asked, "--exact-statistics")
    assert code == 0
    assert not report["privacy"]["covered"]
    assert ("fine-tuned without noise" in report["privacy"]["words"]) == ("--finetune-epochs" in options)
    assert "--exact-statistics" in told


def test_python_refuses_the_same(runs: dict[str, Path]) -> None:
    run = open_run(runs["one"])
    found = run.find(macs="1M", progress=False)
    for refused in ({"finetune_epochs": 1}, {"calibration": "pooled"}):
        with pytest.raises(UserError, match="with exact_statistics"):
            run.extract(found, **refused, progress=False)
    assert run.extract(found, progress=False).info.report["privacy"]["covered"]
    exactly = run.extract(found, exact_statistics=True, progress=False).info.report
    assert exactly["calibration"]["method"] == "pooled"
    # What was opened for exact statistics is not used again.
    assert run.extract(found, progress=False).info.report["calibration"]["method"] == "validation"


def test_an_export_reads_no_image_of_a_client(runs: dict[str, Path]) -> None:
    """Int8 sets its ranges on the evaluator's images for calibration."""
    run = runs["one"]
    opened = opened_run(run, read_space(run), "newest", None)
    assert not isinstance(opened.evaluator, NoEvaluator)
    calibration, held_out = opened.evaluator.calibration, opened.evaluator.held_out  # type: ignore[union-attr]
    own = {image.numpy().tobytes() for image in held_out.images}
    assert {image.numpy().tobytes() for image in calibration.images} <= own


def test_the_option_is_for_private_runs() -> None:
    from fedpareto.search.query.private_runs import check_private

    with pytest.raises(UserError, match="--exact-statistics is for private runs, and run is none; leave it out"):
        check_private(Path("run"), RunConfig(), "batch", "auto", 0, exact=True)
    assert coverage_report(RunConfig(), {"calibration": {"method": "pooled"}}, exact=False) == {}


def test_people_are_told(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, targets = tmp_path / "page.html", tmp_path / "targets.yaml"
    with pytest.raises(SystemExit):
        main(["--run", str(runs["one"]), "--flops-budget", "1M", "--report", str(page)])
    out = " ".join(capsys.readouterr().out.split())
    assert "calibrated on 32 validation images, which belong to no client" in out
    assert "(ε, δ) covers this network" in out
    assert "(ε, δ) covers this network" in page.read_text()
    targets.write_text("phone: {flops_budget: 1M}\n")
    with pytest.raises(SystemExit):
        main(["--run", str(runs["exact"]), "--targets", str(targets)])
    assert "(ε, δ) does not cover this network" in " ".join(capsys.readouterr().out.split())


# Where the images are with the clients.


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, LocalLink]]:
    folder = tmp_path_factory.mktemp("connected")
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        link = LocalLink(folder / "link", 4)
        config = flower_config(folder, privacy=_PRIVATE)
        trained(config, link)
        yield Path(str(config.output)), link


def test_the_answer_alone_asks_no_client(connected: tuple[Path, LocalLink], capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = connected
    code, report, told = _searched(capsys, "--run", run, "--flops-budget", "1M")
    assert code == 0
    assert report["certified"]
    assert "validation_accuracy" not in report
    assert "the subnet is not extracted: its calibration would take exact statistics of clients' images" in told


def test_a_calibrated_subnet_is_refused_and_an_uncalibrated_one_asks_no_client(
    connected: tuple[Path, LocalLink], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = connected
    asked = ("--run", run, "--flops-budget", "1M", "--output")
    code, _, told = _searched(capsys, *asked, tmp_path / "refused")
    assert code == 2
    assert "would be calibrated on clients' images, whose exact statistics the run withholds; search without" in told
    assert not (tmp_path / "refused").exists()
    code, report, _ = _searched(capsys, *asked, tmp_path / "subnet", "--calibration", "none")
    assert code == 0
    assert (tmp_path / "subnet" / "subnet.safetensors").exists()
    assert report["privacy"]["covered"]
    assert "validation_accuracy" not in report


def test_clients_are_asked_where_exact_statistics_are(connected: tuple[Path, LocalLink], tmp_path: Path) -> None:
    run, _ = connected
    link = LocalLink(tmp_path / "link", 4)
    opened = opened_run(run, read_space(run), "newest", link, exact=True)
    entry = read_run_cache(run, opened.space).entries[0]
    report = opened.extract(entry, Extraction(exact=True), {}).info.report
    assert report["calibration"]["method"] == "federated"
    assert "calibrated on clients' images, measured on clients' images" in report["privacy"]["words"]
    assert link.asked("calibrate")
    silent = opened_run(run, read_space(run), "newest", LocalLink(tmp_path / "silent", 4))
    assert isinstance(silent.evaluator, NoEvaluator)
    assert isinstance(silent.federation, UnaskedFederation)
    with pytest.raises(UserError, match="would be calibrated on clients' images"):
        silent.extract(entry, Extraction(), {})
    with pytest.raises(UserError, match="test images are not on this machine"):
        silent.test_images()


@pytest.mark.parametrize("name", ["one", "exact"])
def test_a_private_runs_report_tells_of_validation_images_their_accuracy_alone(
    runs: dict[str, Path], name: str
) -> None:
    _, _, report = _extracted(runs[name], exact=False)
    assert [key for key in report if key.startswith("validation")] == ["validation_accuracy"]
    subnet = open_run(runs[name])
    made = subnet.extract(subnet.find(macs="1M", progress=False), progress=False)
    with pytest.raises(UserError, match="tells more than accuracy, and the run is private"):
        made.measures()


@pytest.mark.parametrize("option", [["--confusion"], ["--export", "torchscript", "--temperature", "logits"]])
def test_a_private_run_refuses_to_tell_more_of_validation_images(
    runs: dict[str, Path], option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "subnet"
    code, _, told = _searched(capsys, "--run", runs["one"], "--flops-budget", "1M", "--output", folder, *option)
    assert code != 0
    assert "private, wh" in told
    assert not folder.exists()


def test_an_export_of_a_private_run_tells_no_temperature(runs: dict[str, Path], tmp_path: Path) -> None:
    found = open_run(runs["one"])
    subnet = found.extract(found.find(macs="1M", progress=False), progress=False)
    assert "temperature" not in subnet.export(tmp_path / "subnet.pt", progress=False)
