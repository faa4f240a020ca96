"""The deployed example as a person on a device uses it: what it prints, and what it refuses."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.processes import ENVIRONMENT
from helpers.repository import ROOT
from helpers.runs.exports import learned
from numpy.typing import NDArray

from fedpareto.search.export import deploy
from fedpareto.search.export.export import export_subnet, write_deploy
from fedpareto.search.export.settings import ExportSettings
from fedpareto.supernet.common.storage.files import record
from fedpareto.supernet.common.terminal.progress import SILENT

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

EXAMPLE = ROOT / "examples" / "deploy.py"

#: Runs the example as a device would that has neither torch nor Pillow nor this project.
_BARE = (
    "import runpy, sys\n"
    "for name in ('torch', 'PIL', 'search', 'supernet', 'training', 'onnx'): sys.modules[name] = None\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


class Deployed(NamedTuple):
    """An exported file and what the network says of one image."""

    file: Path
    pixels: NDArray[np.uint8]
    classes: list[str]
    shares: list[float]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    network, info, images = learned()
    path = tmp_path_factory.mktemp("deployed") / "subnet.onnx"
    export_subnet(path, network, info, images, ExportSettings(), SILENT)
    write_deploy(path.parent)
    image = images.validation.loaded()[5]
    with torch.inference_mode():
        shares = network(info.normalisation.apply(image[None]))[0].softmax(0)
    best = shares.argsort(descending=True)[:3].tolist()
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return Deployed(path, pixels, [info.classes[number] for number in best], shares[best].tolist())


def _run(*arguments: object, script: Path = EXAMPLE, bare: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", _BARE] if bare else []), str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def _ppm(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.write_bytes(b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())
    return path


def _npy(path: Path, pixels: NDArray[Any]) -> Path:
    np.save(path, pixels)
    return path


def _check_classified(deployed: Deployed, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert [line.split()[1] for line in lines] == deployed.classes
    shares = [float(line.split()[0].rstrip("%")) / 100 for line in lines]
    assert shares == pytest.approx(deployed.shares, abs=2e-4)
    assert re.fullmatch(r"\d+\.\d\d ms", last)


@pytest.mark.parametrize("name", ["image.ppm", "image.npy"])
def test_without_torch_and_pillow_it_classifies_as_the_network_does(
    deployed: Deployed, tmp_path: Path, name: str
) -> None:
    write = _ppm if name.endswith("ppm") else _npy
    _check_classified(deployed, _run(deployed.file, write(tmp_path / name, deployed.pixels)))


def test_the_copy_beside_the_model_needs_nothing_of_this_project(deployed: Deployed, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "image.png"
    Image.fromarray(deployed.pixels).save(path)
    copy = deployed.file.parent / "deploy.py"
    assert copy.read_bytes() == EXAMPLE.read_bytes() == Path(deploy.__file__).read_bytes()
    # Isolated: neither PYTHONPATH nor the working folder, so that only what is installed could be found.
    code = (
        "import runpy, sys\n"
        "for name in ('torch', 'search', 'supernet', 'training', 'onnx'): sys.modules[name] = None\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-I", "-c", code, str(copy), str(deployed.file), str(path)]
    _check_classified(deployed, subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path))


def test_without_pillow_what_needs_it_is_named(deployed: Deployed, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"")
    large = _ppm(tmp_path / "large.ppm", np.zeros((9, 16, 3), np.uint8))
    commented = tmp_path / "commented.ppm"
    commented.write_bytes(b"P6\n# words\n8 8\n255\n" + bytes(192))
    for path, words in (
        (tmp_path / "image.png", "Pillow is needed to read .png files: pip install pillow"),
        (large, "Pillow is needed to resize 16×9 pixels for a network of 8×8: pip install pillow"),
        (commented, "no binary PPM"),
    ):
        done = _run(deployed.file, path)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"deploy: error: cannot use {path}: ")
        assert words in line


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command in this process, and return the one line it must end with."""

    def run(*arguments: object) -> str:
        assert deploy.main([*map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith("deploy: error: ")
        return line

    return run


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_it_takes_two_files(deployed: Deployed, refused: Callable[..., str], count: int) -> None:
    assert f"got {count}" in refused(*[deployed.file] * count)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.onnx", None, "cannot read the model"),
        ("long" * 99, None, "File name too long"),
        ("empty.onnx", b"", "as an ONNX model"),
        ("text.onnx", b"a text\nof lines", "as an ONNX model"),
        ("picture.png", b"\x89PNG\r\n\x1a\n", "as an ONNX model"),
        (".", None, "Is a directory"),
    ],
)
def test_what_is_no_model_is_refused(
    refused: Callable[..., str], tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    line = refused(path, _npy(tmp_path / "image.npy", np.zeros((8, 8, 3), np.uint8)))
    assert words in line
    assert str(path) in line


def test_a_model_that_is_cut_short_is_refused(deployed: Deployed, refused: Callable[..., str], tmp_path: Path) -> None:
    content, image = deployed.file.read_bytes(), _npy(tmp_path / "image.npy", deployed.pixels)
    for share in (0.1, 0.5, 0.9, 0.999):
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(content[: int(share * len(content))])
        assert str(cut) in refused(cut, image)


def _with_metadata(deployed: Deployed, path: Path, changes: dict[str, str | None]) -> Path:
    """Write the model with other metadata; None takes a field away."""
    model = onnx.load(deployed.file)
    texts = {entry.key: entry.value for entry in model.metadata_props} | changes
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {name: text for name, text in texts.items() if text is not None})
    onnx.save(model, path)
    return path


_WHOLE: dict[str, Any] = {
    "side": 8, "channels": 3, "fit": "crop", "orientation": "exif", "depths": [255, 4095, 65535], "floats": 16,
    "overshoot": 1.0625, "background": 255, "filter": "bicubic", "resolution_filter": "bilinear",
}  # fmt: skip


def _prepared(**changes: Any) -> dict[str, str | None]:
    return {"preparation": json.dumps({name: value for name, value in (_WHOLE | changes).items() if value != "gone"})}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": None}, "has no metadata of a subnet"),
        ({"classes": None, "normalisation": None, "names": "['cat']"}, "has no metadata of a subnet"),
        ({"preparation": None}, "does not say how pictures are prepared"),
        *(({name: text}, "are damaged") for name in ("preparation", "classes", "resolution", "normalisation")
          for text in ("", "{", "null", "7.5", '"x"', "[]", "[null]", '{"mean": 1}', "NaN", "[" * 5000)),
        *((_prepared(**{name: value}), "are damaged") for name, value in (
            ("side", "gone"), ("side", 0), ("side", "8"), ("side", [8]), ("side", True), ("side", 8.5), ("side", None),
            ("channels", "gone"), ("channels", 0), ("channels", 4), ("depths", []), ("depths", 255), ("depths", ["a"]),
            ("floats", "gone"),
            ("background", 256), ("background", -1), ("background", "white"), ("fit", "gone"), ("fit", 3))),
        *((_prepared(**{name: "other"}), f"asks for {name} 'other'")
          for name in ("fit", "filter", "orientation", "resolution_filter")),
        (_prepared(filter="gone"), "asks for filter None"),
        *(({"normalisation": json.dumps({"mean": mean, "std": std})}, "are damaged") for mean, std in (
            ([0.5] * 2, [0.5] * 3), ([0.5] * 3, [0.5] * 4), ([0.5] * 3, [0.5, 0, 0.5]), ([0.5] * 3, 0.5),
            ([0.5, float("nan"), 0.5], [0.5] * 3), ([0.5] * 3, [float("inf")] * 3), (["0.5"] * 3, [0.5] * 3))),
        ({"classes": '["a", 7]'}, "are damaged"),
        ({"classes": '["a", "b"]'}, "is not the network that its metadata describe"),
        ({"resolution": "9"}, "is not the network that its metadata describe"),
    ],
)  # fmt: skip
def test_models_of_others_and_damaged_descriptions_are_refused(
    deployed: Deployed, refused: Callable[..., str], tmp_path: Path, changes: dict[str, str | None], words: str
) -> None:
    model = _with_metadata(deployed, tmp_path / "model.onnx", changes)
    line = refused(model, _npy(tmp_path / "image.npy", deployed.pixels))
    assert words in line
    assert str(model) in line


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _npz(path: Path) -> Path:
    with path.open("wb") as file:
        np.savez(file, images=np.zeros((8, 8, 3), np.uint8))
    return path


def _cut_picture(path: Path) -> Path:
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return _bytes(path, path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("missing.png", lambda path: path, "No such file"),
        ("missing.npy", lambda path: path, "No such file"),
        ("long" * 99, lambda path: path, "File name too long"),
        ("folder", lambda path: path.mkdir() or path, "Is a directory"),
        ("empty.png", lambda path: _bytes(path, b""), "cannot identify"),
        ("text.jpg", lambda path: _bytes(path, b"no\npicture"), "cannot identify"),
        ("cut.png", _cut_picture, ""),
        ("cut.jpg", _cut_picture, "truncated"),
        ("cut.webp", _cut_picture, ""),
        ("cut.npy", lambda path: _bytes(path, _npy(path, np.zeros((8, 8, 3), np.uint8)).read_bytes()[:-5]), ""),
        ("text.npy", lambda path: _bytes(path, b"no array"), "magic"),
        ("zip.npy", _npz, "magic"),
        ("objects.npy", lambda path: _npy(path, np.array([None, {}])), "Object arrays"),
        ("complex.npy", lambda path: _npy(path, np.zeros((8, 8), complex)), "its values are complex128"),
        ("words.npy", lambda path: _npy(path, np.full((8, 8), "a")), "its values are <U1"),
        ("negative.npy", lambda path: _npy(path, np.full((8, 8), -1)), "a range that is not known"),
        ("infinite.npy", lambda path: _npy(path, np.full((8, 8), np.inf)), "a range that is not known"),
        ("nan.npy", lambda path: _npy(path, np.full((8, 8), np.nan)), "a range that is not known"),
        ("row.npy", lambda path: _npy(path, np.zeros(8, np.uint8)), "it has shape (8,)"),
        ("batch.npy", lambda path: _npy(path, np.zeros((1, 8, 8, 3), np.uint8)), "it has shape (1, 8, 8, 3)"),
        ("nothing.npy", lambda path: _npy(path, np.zeros((0, 8, 3), np.uint8)), "it has shape (0, 8, 3)"),
        ("four.npy", lambda path: _npy(path, np.zeros((8, 8, 4), np.uint8)), "it has 4 channels"),
    ],
)
def test_what_is_no_picture_is_refused(
    deployed: Deployed,
    refused: Callable[..., str],
    tmp_path: Path,
    name: str,
    write: Callable[[Path], Path],
    words: str,
) -> None:
    path = write(tmp_path / name)
    line = refused(deployed.file, path)
    assert str(path) in line
    assert words in line


def test_a_picture_too_large_to_be_one_is_refused(
    deployed: Deployed, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    path = tmp_path / "large.png"
    Image.new("L", (64, 64)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "exceeds limit" in refused(deployed.file, path)


def test_an_output_that_cannot_be_written_is_one_line_and_a_reader_that_left_is_none(
    deployed: Deployed, tmp_path: Path
) -> None:
    command = [sys.executable, str(EXAMPLE), str(deployed.file), str(_npy(tmp_path / "image.npy", deployed.pixels))]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "deploy: error: cannot print: No space left on device\n")
    left = subprocess.run(["bash", "-c", '"$@" | true', "-", *command], capture_output=True, text=True, check=True)
    assert left.stderr == ""


def test_class_names_are_printed_as_text(
    deployed: Deployed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"é[red]\x1b[31m\n{number}" for number in range(10)]
    model = _with_metadata(deployed, tmp_path / "model.onnx", {"classes": json.dumps(names)})
    assert deploy.main([str(model), str(_npy(tmp_path / "image.npy", deployed.pixels))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].endswith(rf"é[red]\x1b[31m\n{deployed.classes[0]}")


def test_one_flipped_bit_of_a_weight_is_found_where_the_digests_were_copied_too(
    deployed: Deployed, refused: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, picture = tmp_path / "subnet.onnx", tmp_path / "a.npy"
    np.save(picture, deployed.pixels)
    content = bytearray(deployed.file.read_bytes())
    model.write_bytes(content)
    record(tmp_path, [model.name])
    assert deploy.main([str(model), str(picture)]) == 0
    capsys.readouterr()
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    assert f"{model} is damaged (its digest does not fit); copy it again" in refused(model, picture)
    for text in (
        "",
        "{",
        "[" * 10_000,
        '{"format": "fedpareto-digests"}',
        '{"format": "fedpareto-digests", "files": 3}',
    ):
        (tmp_path / "digests.json").write_text(text)
        assert "digests.json is damaged; copy it again, or remove it" in refused(model, picture)
    # Somebody else's.
    (tmp_path / "digests.json").write_text('{"files": {"subnet.onnx": "00"}}')
    model.write_bytes(deployed.file.read_bytes())
    assert deploy.main([str(model), str(picture)]) == 0
