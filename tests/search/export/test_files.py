"""An export is checked on pictures in files: as a device reads them, against training's pixels and the network."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.images.drawn_pictures import FORMATS, Drawn
from helpers.networks.strategies import runs
from helpers.runs.exports import HASTY, Learned, learned
from helpers.runs.federation import micro_space
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedpareto.search.export.export import ExportImages, export_subnet
from fedpareto.search.export.files import deployed_inputs, spread
from fedpareto.search.export.metadata import metadata_of
from fedpareto.search.export.settings import ExportError, ExportSettings, Format
from fedpareto.search.export.verify import MOST_FILES
from fedpareto.search.subnet import SubnetInfo
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.genes import decode, random_genes
from fedpareto.supernet.networks.network import build_network
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.config.data import Fit
from fedpareto.training.data.files.preparation import Preparation, read_picture
from fedpareto.training.data.images import ImageSet, normalisation_of

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

_FORMATS: list[Format] = ["onnx", "torchscript", "exported-program"]


def _architecture(space: SearchSpace, resolution: int) -> Architecture:
    drawn = decode(space, random_genes(space, 1, np.random.default_rng(3))[0])
    return dataclasses.replace(drawn, resolution=resolution)


def _untrained(space: SearchSpace, images: ImageSet, preparation: Preparation) -> Learned:
    """Return a network with images of any kind; it needs no calibration as its norms are of groups."""
    architecture = _architecture(space, space.resolutions[0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(space, architecture, running_statistics=True).eval()
    info = SubnetInfo(space, architecture, images.classes, preparation, normalisation_of(images), {})
    return Learned(network, info, ExportImages(images, images, 16))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """One file of every mode and format, no square among them, in turned pictures too."""
    folder, files = tmp_path_factory.mktemp("mixed"), []
    kinds = [(mode, suffix) for mode in FORMATS for suffix in FORMATS[mode]]
    for number, (mode, suffix) in enumerate(kinds):
        file = Drawn(mode, suffix, 20 + number % 7, 31 - number % 9, 1 + number % 8, number).write(folder)
        files.append(file.rename(folder / f"{number}.{suffix}"))
    return tuple(files)


def _of_files(files: tuple[Path, ...], preparation: Preparation, resolutions: tuple[int, ...] = (8,)) -> Learned:
    pixels = np.stack([read_picture(file, preparation) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    data = ImageSet(images, torch.arange(len(files)) % 2, ("even", "odd"), files)
    space = micro_space(norm="group", in_channels=preparation.channels, classes=2, resolutions=resolutions)
    return _untrained(space, data, preparation)


def _exported(path: Path, subnet: Learned, form: Format = "torchscript") -> dict[str, Any]:
    return export_subnet(path, *subnet, ExportSettings(form), SILENT, HASTY)


@pytest.mark.slow
@pytest.mark.parametrize("form", _FORMATS)
def test_images_in_memory_are_written_to_files_and_read_from_those(tmp_path: Path, form: Format) -> None:
    report = _exported(tmp_path / "subnet", learned(), form)
    files = report["files"]
    assert set(files) == {"images", "own", "top1_agreement", "accuracy", "fp32_accuracy"}
    assert (files["images"], files["own"], files["top1_agreement"]) == (MOST_FILES, False, 1)
    assert files["accuracy"] == files["fp32_accuracy"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "channels", "fit"),
    [("onnx", 3, "pad"), ("torchscript", 1, "pad"), ("torchscript", 1, "crop"), ("torchscript", 3, "stretch")],
)
def test_files_of_every_kind_are_read_as_in_training(
    mixed: tuple[Path, ...], tmp_path: Path, form: Format, channels: int, fit: Fit
) -> None:
    report = _exported(tmp_path / "subnet", _of_files(mixed, Preparation(8, channels, fit)), form)
    assert report["files"]["images"] == len(mixed)
    assert report["files"]["own"]
    assert report["files"]["top1_agreement"] == 1
    assert report["files"]["accuracy"] == report["files"]["fp32_accuracy"] == report["validation_accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "resolutions"), [("onnx", (10, 16)), ("torchscript", (8, 12)), ("exported-program", (10, 16))]
)
def test_lower_resolutions_are_resized_as_in_training(
    mixed: tuple[Path, ...], tmp_path: Path, form: Format, resolutions: tuple[int, int]
) -> None:
    subnet = _of_files(mixed, Preparation(resolutions[1]), resolutions)
    assert subnet.info.architecture.resolution == resolutions[0]
    assert _exported(tmp_path / "subnet", subnet, form)["files"]["top1_agreement"] == 1


def test_arrays_of_any_number_of_channels_are_files_too(tmp_path: Path) -> None:
    pixels = torch.randint(256, (12, 5, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageSet(pixels, torch.arange(12) % 2, ("even", "odd"))
    space = micro_space(norm="group", in_channels=5, classes=2)
    report = _exported(tmp_path / "subnet", _untrained(space, data, Preparation(8, 5)))
    assert report["files"]["images"] == 12
    assert report["files"]["top1_agreement"] == 1


def _other_metadata(monkeypatch: pytest.MonkeyPatch, change: Callable[[SubnetInfo], SubnetInfo]) -> None:
    def changed(info: SubnetInfo, *rest: Any) -> Mapping[str, str]:
        return metadata_of(change(info), *rest)

    monkeypatch.setattr("fedpareto.search.export.export.metadata_of", changed)


def _prepared(**changes: Any) -> Callable[[SubnetInfo], SubnetInfo]:
    return lambda info: dataclasses.replace(info, preparation=dataclasses.replace(info.preparation, **changes))


def _normalised(info: SubnetInfo) -> SubnetInfo:
    wrong = dataclasses.replace(info.normalisation, mean=tuple(value + 0.1 for value in info.normalisation.mean))
    return dataclasses.replace(info, normalisation=wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "change", "words"),
    [
        ("onnx", _prepared(fit="pad"), "deploy.py and training make different pixels of"),
        ("torchscript", _normalised, "does not compute what the subnet computes"),
        ("exported-program", _normalised, "does not compute what the subnet computes"),
        ("torchscript", _prepared(fit="stretch"), "deploy.py and training make different pixels of"),
        ("torchscript", _prepared(side=9), r"deploy.py makes \(9, 9, 3\) of"),
    ],
)
def test_a_file_that_says_something_else_than_training_did_is_never_written(
    mixed: tuple[Path, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: Format,
    change: Callable[[SubnetInfo], SubnetInfo],
    words: str,
) -> None:
    subnet = _of_files(mixed, Preparation(8))
    _other_metadata(monkeypatch, change)
    with pytest.raises(ExportError, match=words) as caught:
        _exported(tmp_path / "subnet", subnet, form)
    assert "nothing is written" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_resizes_otherwise_is_noticed(
    mixed: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subnet = _of_files(mixed, Preparation(8))
    monkeypatch.setattr("fedpareto.search.export.deploy._fitted", lambda pixels, _: pixels[:8, :8])
    with pytest.raises(ExportError, match="make different pixels of"):
        _exported(tmp_path / "subnet", subnet)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Path.unlink, "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "cannot read"),
        (lambda path: Image.new("RGB", (20, 20)).save(path), "make different pixels of"),
    ],
)
def test_a_file_that_changed_since_it_was_read_is_named(
    tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    files = tuple(
        Drawn("RGB", "png", 20, 30, 1, number).write(tmp_path).rename(tmp_path / f"{number}.png") for number in range(4)
    )
    subnet = _of_files(files, Preparation(8))
    change(files[2])
    with pytest.raises(ExportError, match=words) as caught:
        _exported(tmp_path / "subnet", subnet)
    assert str(files[2]) in str(caught.value)
    assert not (tmp_path / "subnet").exists()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 40))
@runs(60)
def test_pictures_are_spread_over_the_classes(labels: list[int], most: int) -> None:
    data = ImageSet(torch.arange(len(labels)).view(-1, 1, 1, 1), torch.tensor(labels), tuple("abcde"))
    chosen = spread(data, most)
    assert len(chosen) == min(most, len(labels))
    assert len(set(chosen.loaded().flatten().tolist())) == len(chosen)
    counts = np.bincount(chosen.labels, minlength=5)
    left = np.bincount(labels, minlength=5) - counts
    # A class that could give more gives at most one less than any other.
    assert all(counts[label] >= counts.max() - 1 for label in range(5) if left[label])


def test_inputs_are_made_one_after_another(mixed: tuple[Path, ...]) -> None:
    from fedpareto.search.export.deploy import read_description

    subnet = _of_files(mixed, Preparation(8))
    description = read_description(metadata_of(subnet.info), Path("subnet"))
    shapes = [images.shape for images in deployed_inputs(subnet.images.validation, description)]
    assert shapes == [(1, 3, 8, 8)] * len(mixed)
