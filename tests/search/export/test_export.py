import dataclasses
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks.strategies import architectures, runs
from helpers.repository import ROOT
from helpers.runs.exports import CALIBRATED, HASTY, learned, with_random_norms
from helpers.runs.federation import micro_space
from hypothesis import given

from fedpareto.fitness.costs import FilePrecision
from fedpareto.search.export.export import export_subnet
from fedpareto.search.export.formats import opened
from fedpareto.search.export.metadata import metadata_of
from fedpareto.search.export.settings import ExportError, ExportSettings, Format, check_export, file_name
from fedpareto.search.export.torch_files import METADATA
from fedpareto.search.export.verify import TOLERANCE, HeldOut, arrays, compare, verify
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.space import SearchSpace, StageSpec, StemSpec

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

_KINDS: list[tuple[Format, FilePrecision]] = [
    ("onnx", "fp32"),
    ("onnx", "fp16"),
    ("onnx", "int8"),
    ("torchscript", "fp32"),
    ("exported-program", "fp32"),
]
_RESNET = SearchSpace(
    name="micro-resnet",
    family="resnet",
    stem=StemSpec(8),
    stages=(StageSpec(16, stride=2), StageSpec(24, stride=2)),
    resolutions=(8,),
    depths=(1, 2),
    expands=(0.5, 1.0),
    width_multipliers=(0.5, 1.0),
)
_REPORTED = {
    "format", "precision", "file", "file_bytes", "max_abs_error", "top1_agreement", "images", "validation_accuracy",
    "fp32_validation_accuracy", "files", "latency", "temperature",
}  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Format, FilePrecision], dict[str, Any]]:
    """Reports of one learned network in every format and precision."""
    folder = tmp_path_factory.mktemp("exported")
    reports = {}
    for form, precision in _KINDS:
        path, settings = folder / file_name(form, precision), ExportSettings(form, precision)
        reports[form, precision] = export_subnet(path, *learned(), settings, SILENT)
    return reports


@pytest.mark.parametrize("kind", _KINDS)
def test_the_report_tells_how_good_the_file_is(exported: dict[Any, dict[str, Any]], kind: Any) -> None:
    report = exported[kind]
    assert set(report) == _REPORTED
    assert (report["format"], report["precision"]) == kind
    assert report["file_bytes"] == Path(report["file"]).stat().st_size
    assert report["images"] == len(learned().images.validation)
    assert report["fp32_validation_accuracy"] > 0.8
    assert set(report["latency"]) == {"ms", "low", "high", "runs", "runtime", "threads", "batch", "machine"}
    assert report["latency"]["low"] <= report["latency"]["ms"] <= report["latency"]["high"]
    assert report["latency"]["runtime"].split()[0] == ("onnxruntime" if kind[0] == "onnx" else "torch")
    json.dumps(report)


@pytest.mark.parametrize("kind", [kind for kind in _KINDS if kind[1] == "fp32"])
def test_fp32_files_compute_what_the_network_computes(exported: dict[Any, dict[str, Any]], kind: Any) -> None:
    report = exported[kind]
    assert report["max_abs_error"] < 1e-4
    assert report["top1_agreement"] == 1
    assert report["validation_accuracy"] == report["fp32_validation_accuracy"]


def test_fp16_and_int8_keep_the_accuracy_and_are_smaller(exported: dict[Any, dict[str, Any]]) -> None:
    full = exported["onnx", "fp32"]
    for precision, agreement in (("fp16", 0.99), ("int8", 0.95)):
        report = exported["onnx", precision]
        assert report["max_abs_error"] > full["max_abs_error"]
        assert report["top1_agreement"] >= agreement
        assert report["validation_accuracy"] >= full["validation_accuracy"] - 0.03
    assert exported["onnx", "fp16"]["file_bytes"] < full["file_bytes"]


@pytest.mark.parametrize("kind", _KINDS)
def test_files_hold_their_metadata_and_no_places(exported: dict[Any, dict[str, Any]], kind: Any) -> None:
    path = Path(exported[kind]["file"])
    metadata = _metadata(path)
    info = learned().info
    fitted = exported[kind]["temperature"]
    assert metadata == metadata_of(info, kind[1], {"value": fitted["value"], "applied": False})
    values = {name: json.loads(text) for name, text in metadata.items()}
    assert values["architecture"] == json.loads(str(info.architecture))
    assert values["classes"] == list(info.classes)
    assert values["normalisation"] == dataclasses.asdict(info.normalisation) | {
        "mean": list(info.normalisation.mean),
        "std": list(info.normalisation.std),
    }
    assert (values["run"], values["checkpoint"]) == ("digits", "round-000003")
    assert (values["macs"], values["params"], values["fitness"]) == (7, 5, 1.5)
    assert (values["space"], values["resolution"], values["calibration"]) == ("micro", 8, CALIBRATED)
    assert values["precision"] == kind[1]
    assert set(values) >= {"fedpareto_version"}
    content = _content(path)
    places = (os.getcwd(), str(ROOT), str(path.parent), "site-packages", "/machine")
    assert [place for place in places if place.encode() in content] == []


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix == ".onnx":
        held: dict[str, str] = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
        return held
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(METADATA))
        return dict(json.loads(archive.read(name)))


def _content(path: Path) -> bytes:
    """Return the bytes of a file, unpacked if it is an archive."""
    if path.suffix == ".onnx":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


@pytest.mark.parametrize("kind", _KINDS)
def test_files_run_batches_of_any_size(exported: dict[Any, dict[str, Any]], kind: Any) -> None:
    with opened(Path(exported[kind]["file"]), kind[0], threads=1) as file:
        for count in (1, 2, 7):
            assert file.run(np.zeros((count, 3, 8, 8), np.float32)).shape == (count, 10)


def _check_drawn(folder: Path, space: SearchSpace, architecture: Architecture) -> None:
    drawn = learned(space, architecture, steps=0)
    with_random_norms(drawn.network)
    path = folder / file_name("onnx", "fp32")
    path.unlink(missing_ok=True)
    report = export_subnet(path, *drawn, ExportSettings(), SILENT, HASTY)
    assert report["max_abs_error"] < 1e-4
    assert report["top1_agreement"] == 1


@pytest.mark.parametrize(
    ("space", "norm"),
    [
        pytest.param(space, norm, id=f"{space.family}-{norm}", marks=[pytest.mark.slow] if norm in seldom else [])
        for space, seldom in ((micro_space(), ["none"]), (_RESNET, ["batch", "group"]))
        for norm in ("batch", "group", "none")
    ],
)
def test_exported_files_of_drawn_architectures_are_exact(
    tmp_path_factory: pytest.TempPathFactory, space: SearchSpace, norm: Any
) -> None:
    space = dataclasses.replace(space, norm=norm)

    @given(architectures(space))
    @runs(1, shrink=False)
    def check(architecture: Architecture) -> None:
        _check_drawn(tmp_path_factory.mktemp("drawn"), space, architecture)

    check()


def test_a_file_of_another_network_is_refused_and_leaves_nothing(
    exported: dict[Any, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, info, images = learned()
    held_out = HeldOut(images.validation, info.normalisation, 8, 64)
    other = learned(micro_space(norm="group"), info.architecture, steps=0).network
    path = Path(exported["onnx", "fp32"]["file"])
    with pytest.raises(ExportError, match=r"does not compute what the subnet computes: logits of up to \S+ differ by"):
        verify(path, other, held_out, ExportSettings())
    monkeypatch.setattr("fedpareto.search.export.export.folded", lambda _: other)
    with pytest.raises(ExportError, match="nothing is written"):
        export_subnet(tmp_path / "subnet.pt", network, info, images, ExportSettings("torchscript"), SILENT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_values_that_are_not_finite_are_refused(precision: FilePrecision, monkeypatch: pytest.MonkeyPatch) -> None:
    network, info, images = learned()
    held_out = HeldOut(images.validation, info.normalisation, 8, 64)
    result = compare(lambda pixels: np.full((len(pixels), 10), np.nan, np.float32), network, held_out)
    monkeypatch.setattr("fedpareto.search.export.verify.compare", lambda *_: result)
    monkeypatch.setattr("fedpareto.search.export.verify.opened", _nothing_opened)
    with pytest.raises(ExportError, match="a logit is not finite"):
        verify(Path("none"), network, held_out, ExportSettings("onnx", precision))


class _nothing_opened:  # noqa: N801
    run = None

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> "_nothing_opened":
        return self

    def __exit__(self, *_: object) -> None: ...


def test_an_error_in_one_image_alone_is_seen() -> None:
    network, info, images = learned()
    held_out = HeldOut(images.validation, info.normalisation, 8, 64)

    def run(pixels: Any) -> Any:
        with torch.inference_mode():
            logits = network(torch.from_numpy(pixels)).numpy()
        return logits + (len(pixels) == 1)

    result = compare(run, network, held_out)
    assert result.max_abs_error == pytest.approx(1, abs=1e-3)
    assert result.max_abs_error > TOLERANCE * result.largest_logit
    assert result.agreement == 1


def test_an_uncalibrated_network_is_refused_unless_allowed(tmp_path: Path) -> None:
    network, info, images = learned()
    path = tmp_path / "subnet.pt"
    with pytest.raises(ExportError, match="not calibrated"):
        export_subnet(path, network, dataclasses.replace(info, report={}), images, ExportSettings(), SILENT)
    calibration = {"method": "none", "clients": 0, "batches": 0, "images": 0}
    info = dataclasses.replace(info, report={**info.report, "calibration": calibration})
    with pytest.raises(ExportError, match="not calibrated, its accuracy is that of chance"):
        export_subnet(path, network, info, images, ExportSettings("torchscript"), SILENT)
    assert not path.exists()
    allowed = ExportSettings("torchscript", allow_uncalibrated=True)
    assert export_subnet(path, network, info, images, allowed, SILENT)["file_bytes"] > 0
    assert json.loads(_metadata(path)["calibration"]) == calibration


@pytest.mark.parametrize("norm", ["group", "none"])
def test_without_batch_norm_no_calibration_is_needed(tmp_path: Path, norm: Any) -> None:
    network, info, images = learned(micro_space(norm=norm), steps=0)
    info = dataclasses.replace(info, report={})
    export_subnet(tmp_path / "subnet.pt", network, info, images, ExportSettings("torchscript"), SILENT)
    values = {name: json.loads(text) for name, text in _metadata(tmp_path / "subnet.pt").items()}
    assert values["run"] is values["checkpoint"] is values["macs"] is None


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "subnet.pt"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists"):
        export_subnet(path, *learned(), ExportSettings("torchscript"), SILENT)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ExportSettings("torchscript", "int8"), "a file of torchscript is written in fp32 only; for int8 choose onnx"),
        (ExportSettings("exported-program", "fp16"), "a file of exported-program is written in fp32 only"),
        (ExportSettings(threads=0), "threads is 0"),
        (ExportSettings(batch=0), "batch is 0"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings: ExportSettings, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check_export(settings)


def test_a_missing_extra_is_refused_for_onnx_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'fedpareto\[export\]'"):
        check_export(ExportSettings("onnx"))
    check_export(ExportSettings("torchscript"))


def test_files_are_named_after_format_and_precision() -> None:
    names = [file_name(*kind) for kind in _KINDS]
    assert names == ["subnet.onnx", "subnet-fp16.onnx", "subnet-int8.onnx", "subnet.pt", "subnet.pt2"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in _KINDS if kind[1] == "fp32"])
def test_logits_are_divided_by_the_temperature_if_that_is_asked_for(tmp_path: Path, kind: Any) -> None:
    network, info, images = learned()
    file = tmp_path / file_name(*kind)
    report = export_subnet(file, network, info, images, ExportSettings(kind[0], kind[1], temperature="logits"), SILENT)
    temperature = report["temperature"]
    assert temperature["applied"] is True
    assert json.loads(_metadata(file)["temperature"]) == {"value": temperature["value"], "applied": True}
    assert temperature["value"] != pytest.approx(1, abs=0.01)
    (pixels,) = arrays(images.validation.subset(torch.arange(20)), 20, 8, info.normalisation)
    with opened(file, kind[0], 1) as runnable, torch.inference_mode():
        expected = network(torch.from_numpy(pixels)) / temperature["value"]
        assert runnable.run(pixels) == pytest.approx(expected.numpy(), abs=1e-4)


def test_an_export_without_a_temperature_tells_none(tmp_path: Path) -> None:
    file = tmp_path / "subnet.pt"
    report = export_subnet(file, *learned(), ExportSettings("torchscript", temperature="none"), SILENT)
    assert "temperature" not in report
    assert "temperature" not in _metadata(file)
