"""The linear model of a study, against the library's own on the same images."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import called, check_refused
from helpers.images.pictures import write_pictures
from helpers.runs.federation import micro_config
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fedpareto.search.comparison.linear import (
    PENALTIES,
    LinearResult,
    fit_linear,
    linear_of,
    main,
    read_linear,
    write_linear,
)
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.run import RunConfig, write_config
from fedpareto.training.data.images import ImageSet
from fedpareto.training.engines.simulation.federation import new_simulation


def _images(count: int, seed: int, noise: float = 60.0, classes: int = 3) -> ImageSet:
    """Images whose class is how bright each channel is, beneath noise; one value never changes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    light = 90 + 40 * torch.nn.functional.one_hot(labels, classes)[:, :, None, None].float()
    pixels = light + noise * torch.randn((count, classes, 4, 4), generator=generator)
    pixels[:, 0, 0, 0] = 9
    return ImageSet(pixels.clamp(0, 255).to(torch.uint8), labels, tuple("abc"[:classes]))


def _by_the_library(training: ImageSet, held_out: ImageSet, test: ImageSet) -> dict[float, tuple[float, float]]:
    """Return the accuracies on held-out and test images by penalty."""
    flat = [images.loaded().flatten(1).double().numpy() for images in (training, held_out, test)]
    scaler = StandardScaler().fit(flat[0])
    first, *others = [scaler.transform(pixels) for pixels in flat]
    found = {}
    for penalty in PENALTIES:
        model = LogisticRegression(C=1 / (penalty * len(training)), max_iter=5000).fit(first, training.labels.numpy())
        scores = [
            float(np.mean(model.predict(pixels) == images.labels.numpy()))
            for pixels, images in zip(others, (held_out, test), strict=True)
        ]
        found[penalty] = (scores[0], scores[1])
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_penalty_is_the_one_that_held_out_images_prefer(seed: int) -> None:
    training, held_out, test = (_images(count, 10 * seed + place) for place, count in enumerate((90, 60, 60)))
    expected = _by_the_library(training, held_out, test)
    found = fit_linear(training, held_out, test)
    best = max(expected, key=lambda penalty: (expected[penalty][0], penalty))
    assert found.penalty == best
    # Single precision may turn the one image that lies on the edge.
    assert (found.validation_accuracy, found.test_accuracy) == pytest.approx(expected[best], abs=1.01 / 60)
    assert (found.macs, found.params) == (48 * 3, 49 * 3)


def test_the_test_images_choose_nothing() -> None:
    training, held_out = _images(90, 1), _images(60, 2)
    chosen = {fit_linear(training, held_out, _images(60, seed)).penalty for seed in (3, 4, 5)}
    assert len(chosen) == 1


def test_images_of_one_class_are_refused() -> None:
    training = dataclasses.replace(_images(30, 0), labels=torch.zeros(30, dtype=torch.int64))
    with pytest.raises(UserError, match="all images of the clients are of one class"):
        fit_linear(training, _images(6, 1), _images(6, 2))


def test_it_is_fitted_to_the_images_that_the_clients_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[ImageSet] = []

    def remembered(*images: ImageSet) -> LinearResult:
        given.extend(images)
        return LinearResult(1, 2, 0.1, 0.5, 0.25, 1.0)

    monkeypatch.setattr("fedpareto.search.comparison.linear.fit_linear", remembered)
    config = _config(tmp_path)
    linear_of(config)
    federation = new_simulation(config, _space(config))
    everyone = sorted(index for members in federation.split.clients for index in members)
    # A scheme that leaves images to nobody.
    assert len(everyone) + len(federation.split.validation) < len(federation.data)
    training, held_out, test = given
    assert training.digest() == federation.data.subset(torch.tensor(everyone)).digest()
    assert held_out.digest() == federation.data.subset(torch.tensor(federation.split.validation)).digest()
    assert {path.parents[1].name for path in test.paths or ()} == {"test"}


def _config(folder: Path) -> RunConfig:
    from helpers.runs.federation import micro_space

    from fedpareto.training.config.partition import PartitionConfig

    root = write_pictures(folder / "data", {"train": {"a": 23, "b": 24}, "test": {"a": 3, "b": 3}})
    return micro_config(
        folder,
        micro_space(classes=2),
        data=DataConfig("imagefolder", str(root)),
        partition=PartitionConfig("shard", shards_per_client=2),
        clients=ClientsConfig(count=5, per_round=2),
        client=ClientConfig(epochs=1, batch_size=4, lr=0.05),
    )


def _space(config: RunConfig) -> Any:
    from fedpareto.supernet.space_file import load_space

    return load_space(config.space)


@pytest.mark.slow
def test_a_process_writes_its_result_and_what_it_cannot_do_is_one_line(tmp_path: Path) -> None:
    config = _config(tmp_path)
    write_config(tmp_path / "linear.yaml", config)
    done = _fit("--config", tmp_path / "linear.yaml", "--output", tmp_path / "linear")
    assert done.returncode == 0, done.stderr
    assert read_linear(tmp_path / "linear") == dataclasses.replace(
        linear_of(config), seconds=read_linear(tmp_path / "linear").seconds
    )
    missing = dataclasses.replace(config, data=DataConfig("imagefolder", str(tmp_path / "nowhere")))
    write_config(tmp_path / "missing.yaml", missing)
    check_refused(called(main, "--config", tmp_path / "missing.yaml", "--output", tmp_path / "other"), "linear-model")
    assert not (tmp_path / "other").exists()


def _fit(*arguments: object) -> "subprocess.CompletedProcess[str]":
    program = "from fedpareto.search.comparison.linear import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_result_that_was_altered_is_refused(tmp_path: Path) -> None:
    write_linear(tmp_path, LinearResult(1, 2, 0.1, 0.5, 0.25, 1.0))
    assert read_linear(tmp_path) == LinearResult(1, 2, 0.1, 0.5, 0.25, 1.0)
    path = tmp_path / "linear.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_accuracy": 0.99}))
    with pytest.raises(UserError, match=r"linear\.json"):
        read_linear(tmp_path)
