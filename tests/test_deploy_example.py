import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from exports import learned
from processes import ENVIRONMENT

from cache.progress import SILENT
from search.export.export import export_subnet
from search.export.settings import ExportSettings

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

EXAMPLE = Path(__file__).parents[1] / "examples" / "deploy.py"

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
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    classes: list[str]
    shares: list[float]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    network, info, images = learned()
    path = tmp_path_factory.mktemp("deployed") / "subnet.onnx"
    export_subnet(path, network, info, images, ExportSettings(), SILENT)
    image = images.validation.images[5]
    with torch.inference_mode():
        shares = network(info.normalisation.apply(image[None]))[0].softmax(0)
    best = shares.argsort(descending=True)[:3].tolist()
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return Deployed(path, pixels, [info.classes[number] for number in best], shares[best].tolist())


def _run(*arguments: object, bare: bool = True) -> subprocess.CompletedProcess[str]:
    start = ["-c", _BARE, str(EXAMPLE)] if bare else [str(EXAMPLE)]
    command = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def _ppm(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Path:
    path.write_bytes(b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())
    return path


def _npy(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Path:
    np.save(path, pixels)
    return path


@pytest.mark.parametrize("name", ["image.ppm", "image.npy"])
def test_without_torch_and_pillow_it_classifies_as_the_network_does(
    deployed: Deployed, tmp_path: Path, name: str
) -> None:
    write = _ppm if name.endswith("ppm") else _npy
    done = _run(deployed.file, write(tmp_path / name, deployed.pixels))
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert [line.split()[1] for line in lines] == deployed.classes
    shares = [float(line.split()[0].rstrip("%")) / 100 for line in lines]
    assert shares == pytest.approx(deployed.shares, abs=2e-4)
    assert last.endswith(" ms")


def test_other_formats_and_sizes_go_through_pillow(deployed: Deployed, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "image.png"
    Image.fromarray(deployed.pixels).resize((16, 16), resample=0).save(path)
    done = _run(deployed.file, path, bare=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split()[1] == deployed.classes[0]


def _refused(*arguments: object) -> str:
    done = _run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_mistakes_are_one_line(deployed: Deployed, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"")
    large = _ppm(tmp_path / "large.ppm", np.zeros((9, 16, 3), np.uint8))
    (tmp_path / "cut.ppm").write_bytes(b"P6\n8 8\n255\nshort")
    flat = _npy(tmp_path / "flat.npy", np.zeros((8, 8), np.uint8))
    file = deployed.file
    assert "give two files" in _refused(file)
    assert "cannot read" in _refused("none.onnx", large)
    assert "cannot read none.npy: " in _refused(file, "none.npy")
    assert "Pillow is needed to read or resize .png images: pip install" in _refused(file, tmp_path / "image.png")
    assert "16×9 images for a network of 8×8" in _refused(file, large)
    assert "cut.ppm" in _refused(file, tmp_path / "cut.ppm")
    assert "it must be uint8 (height, width, 3)" in _refused(file, flat)
