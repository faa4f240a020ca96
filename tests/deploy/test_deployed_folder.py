"""A run on a folder of pictures as people have them: what is delivered classifies the files as the command says."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.commands import run_main
from helpers.processes import ENVIRONMENT
from helpers.runs.federation import finished_run, micro_cache, micro_space, write_space
from numpy.typing import NDArray
from PIL import Image

from fedpareto.cache.cache_file import write_cache
from fedpareto.search.cli import main
from fedpareto.search.export import deploy
from fedpareto.search.subnet import load_subnet, read_subnet_info
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.data.batches import prepare
from fedpareto.training.data.sources import load_images

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

#: Which half is dark; turned or flattened wrongly, a picture is one of another class or of none.
CLASSES = ("bottom", "left", "right", "top")

_KINDS = ("grey", "rgb", "turned", "alpha", "palette", "deep", "float", "cmyk", "array")

#: EXIF's tag of the orientation; 6 is stored a quarter turn to the left of upright.
_ORIENTATION, _LEFT_OF_UPRIGHT = 274, 6


def _dark_half(name: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return grey values of a picture that is no square, dark in one half."""
    height, width = (int(side) for side in generator.permutation((20, int(generator.integers(21, 40)))))
    pixels = generator.integers(150, 256, (height, width), dtype=np.uint8)
    halves: dict[str, Any] = {
        "top": np.s_[: height // 2], "bottom": np.s_[height // 2 :],
        "left": np.s_[:, : width // 2], "right": np.s_[:, width // 2 :],
    }  # fmt: skip
    pixels[halves[name]] //= 8
    return pixels


def _write(path: Path, kind: str, grey: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(grey)
    if kind == "array":
        np.save(path.with_suffix(".npy"), grey.astype(np.uint16) * 16)
    elif kind in ("deep", "float"):
        deep = grey.astype(np.uint16) * 257 if kind == "deep" else grey.astype(np.float32) / 255
        Image.fromarray(deep).save(path.with_suffix(".tif"))
    elif kind == "turned":
        exif = Image.Exif()
        exif[_ORIENTATION] = _LEFT_OF_UPRIGHT
        picture.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif)
    elif kind == "alpha":
        # Black all over; what is bright is so because it is transparent.
        Image.merge("LA", (Image.new("L", picture.size), Image.fromarray(255 - grey))).save(path.with_suffix(".png"))
    elif kind == "palette":
        picture.convert("P").save(path.with_suffix(".png"), transparency=255)
    elif kind == "cmyk":
        picture.convert("CMYK").save(path.with_suffix(".tif"))
    else:
        picture.convert("L" if kind == "grey" else "RGB").save(path.with_suffix(".bmp"))


def _write_pictures(root: Path) -> None:
    generator = np.random.default_rng(0)
    for split, copies in (("train", 8), ("test", 2)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for kind in _KINDS:
                for number in range(copies):
                    _write(folder / f"{kind}{number}", kind, _dark_half(name, generator))


class Trained(NamedTuple):
    """A finished run and the folder of its pictures."""

    run: Path
    root: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder, root = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("pictures")
    _write_pictures(root)
    space = micro_space(resolutions=(8, 12), classes=len(CLASSES))
    write_cache(folder / "elastic.jsonl", micro_cache(space))
    (folder / "space").mkdir()
    changes: dict[str, Any] = {
        "space": str(write_space(folder / "space", space)),
        "cache": str(folder / "elastic.jsonl"),
        "data": DataConfig(name="imagefolder", root=str(root), crop=0, flip=False, fit="pad"),
        "clients": ClientsConfig(count=3, per_round=3),
        "rounds": 25,
    }
    return Trained(finished_run(folder, **changes), root)


@pytest.mark.parametrize("budget", ["60K", pytest.param("1M", marks=pytest.mark.slow)])
def test_what_is_delivered_classifies_files_as_the_command_says(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], budget: str
) -> None:
    output = tmp_path / "subnet"
    options = ("--run", trained.run, "--flops-budget", budget, "--test", "--export", "onnx", "--output", output)
    outcome = run_main(main, capsys, *options, "--json")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    # Chance is a quarter.
    assert report["test_accuracy"] > 0.4
    assert report["export"]["files"]["own"]
    assert report["export"]["files"]["accuracy"] == report["validation_accuracy"]
    info = read_subnet_info(output)
    assert (info.preparation.side, info.preparation.channels, info.preparation.fit) == (12, 3, "pad")

    test = load_images("imagefolder", str(trained.root), "test", info.preparation)
    resolution = info.architecture.resolution
    with torch.inference_mode():
        expected = load_subnet(output)(prepare(test.loaded(), resolution, info.normalisation)).argmax(1)
    assert test.paths is not None
    assert len(test.paths) == 2 * len(_KINDS) * len(CLASSES)
    found = [_class_of(output, path, capsys) for path in test.paths]
    assert found == [CLASSES[number] for number in expected]
    right = sum(name == path.parent.name for name, path in zip(found, test.paths, strict=True))
    assert right / len(found) == pytest.approx(report["test_accuracy"], abs=1e-9)


def _class_of(output: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert deploy.main([str(output / "subnet.onnx"), str(path)]) == 0
    return capsys.readouterr().out.split()[1]


@pytest.mark.slow
def test_the_printed_command_works_with_the_delivered_folder_alone(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a subnet"
    options = ("--run", trained.run, "--flops-budget", "1M", "--export", "onnx", "--output", output)
    outcome = run_main(main, capsys, *options)
    assert outcome.code == 0, outcome.err
    assert "read from their files as a device does: the same pixels as in training; accuracy" in outcome.out
    command = shlex.split(outcome.err.splitlines()[-1].removeprefix("next: "))
    assert command[0] == "python"
    moved = Path(shutil.move(output, tmp_path / "device"))
    script, model = (str(moved / Path(name).name) for name in command[1:3])
    picture = next((trained.root / "test" / "left").glob("turned*"))
    code = [sys.executable, "-I", script, model, str(picture)]
    done = subprocess.run(code, capture_output=True, text=True, env=ENVIRONMENT, cwd=moved, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == _class_of(moved, picture, capsys)
