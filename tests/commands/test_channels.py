"""Whole runs on grey pictures, RGB ones and arrays of five channels, from the cache to the exported file."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import check_refused, run_main
from helpers.images.pictures import noise, write_pictures
from helpers.runs.federation import arguments_of, micro_cache, micro_config, micro_recipe, micro_space, read_metrics
from helpers.runs.flower import LocalLink, flower_config, trained
from helpers.runs.simulation import same_bytes

from fedpareto.cache.cli import main as build_cache
from fedpareto.search.cli import main as search_subnet
from fedpareto.search.profiling.cli import main as profile_device
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import space_to_mapping
from fedpareto.training.cli import main as train_supernet
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.augment import Augmentation, augment
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.images import Normalisation
from fedpareto.training.data.sources import load_images
from fedpareto.training.engines.simulation.bench import bench_of
from fedpareto.training.execution.profile import Profile
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.runs.folder import read_space
from fedpareto.training.setup import with_data_defaults

_CHANNELS = [1, 3, 5]
_PARTS = {"train": {"a": 20, "b": 20}, "test": {"a": 5, "b": 5}}

Run = Callable[[int], Path]


def _space(channels: int) -> SearchSpace:
    return micro_space(in_channels=channels, classes=2, resolutions=(6, 8))


def _config(folder: Path, channels: int, root: Path) -> RunConfig:
    mixed = DataConfig("imagefolder", str(root), cutout=2, mixup=0.2, cutmix=0.5)
    clients, client = ClientsConfig(count=2, per_round=2), ClientConfig(epochs=1, batch_size=4, lr=0.05)
    return micro_config(folder, _space(channels), rounds=2, data=mixed, clients=clients, client=client)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trains a run of so many channels once."""
    done: dict[int, Path] = {}

    def trained_once(channels: int) -> Path:
        if channels not in done:
            folder = tmp_path_factory.mktemp(f"channels-{channels}")
            root = write_pictures(folder / "data", _PARTS, channels)
            with pytest.raises(SystemExit) as caught:
                train_supernet(arguments_of(_config(folder, channels, root)))
            assert caught.value.code == 0
            done[channels] = folder / "run"
        return done[channels]

    return trained_once


def _weights(run: Path) -> Tensors:
    return dict(load_checkpoint(newest_checkpoint(run), read_space(run)).models.supernet)


@pytest.mark.parametrize("channels", _CHANNELS)
def test_a_run_of_any_channels_trains_and_is_evaluated(run: Run, channels: int) -> None:
    folder = run(channels)
    records = read_metrics(folder)
    assert [record["round"] for record in records] == [1, 2]
    assert all(np.isfinite(record["train_loss"]) for record in records)
    assert records[-1]["probes"]
    assert _weights(folder)["stem.entry.conv.weight"].shape[1] == channels


@pytest.mark.slow
@pytest.mark.parametrize("channels", _CHANNELS)
def test_a_subnet_of_any_channels_is_tuned_calibrated_tested_and_exported(
    run: Run, channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "subnet"
    done = run_main(
        search_subnet, capsys, "--run", run(channels), "--flops-budget", "60k", "--test", "--finetune-epochs", 1,
        "--calibration", "federated", "--export", "onnx", "--output", output, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert {"validation_accuracy", "test_accuracy", "export"} <= report.keys()


@pytest.mark.parametrize("channels", _CHANNELS)
def test_blocks_of_any_channels_are_profiled(
    run: Run, channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_main(
        profile_device, capsys, "--run", run(channels), "--output", tmp_path / "table.json", "--runtime", "torch",
        "--interval", 0.5,
    )  # fmt: skip
    assert done.code == 0, done.err


@pytest.mark.parametrize("channels", _CHANNELS)
def test_a_cache_of_any_channels_is_built(channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(json.dumps(space_to_mapping(_space(channels))))
    output = tmp_path / "cache.jsonl"
    done = run_main(build_cache, capsys, "--space", space, "--solver", "exact", "--entries", 5, "--output", output)
    assert done.code == 0, done.err


@pytest.mark.parametrize("channels", [1, 5])
def test_connected_clients_of_any_channels_train_as_simulated_ones(tmp_path: Path, channels: int) -> None:
    root = write_pictures(tmp_path / "data", {"train": {"a": 24, "b": 24}}, channels)
    data = DataConfig("imagefolder", str(root), validation=0.2)
    changes: dict[str, Any] = {
        "data": data,
        "clients": ClientsConfig(count=2, per_round=2),
        "client": ClientConfig(epochs=1, batch_size=4, lr=0.05),
    }
    weights = []
    for engine in ("flower", "in-process"):
        folder = tmp_path / engine
        folder.mkdir()
        config = dataclasses.replace(flower_config(folder, **changes), engine=engine)
        replaced = micro_config(folder, _space(channels))
        config = dataclasses.replace(config, space=replaced.space, cache=replaced.cache)
        link = None
        if engine == "flower":
            link = LocalLink(tmp_path / "link", 2)
            for settings in link.online.values():
                settings["data-root"] = str(root)
        run, _, _ = trained(config, link)
        weights.append(_weights(run.folder))
    assert same_bytes(*weights)


# What pictures become.


def test_digits_are_grey_and_the_same_in_every_channel_of_three() -> None:
    grey, colour = (load_images("digits", "", "test", Preparation(12, channels)).loaded() for channels in (1, 3))
    assert torch.equal(grey.expand(-1, 3, -1, -1), colour)


def test_colours_become_the_grey_of_pillow(tmp_path: Path) -> None:
    write_pictures(tmp_path, _PARTS)
    grey, colour = (
        load_images("imagefolder", str(tmp_path), "train", Preparation(8, channels)).loaded() for channels in (1, 3)
    )
    # ITU-R 601-2, as Pillow computes L.
    weighed = (colour * torch.tensor([299, 587, 114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True) / 1000
    torch.testing.assert_close(grey.double(), weighed.double(), atol=1, rtol=0)


@pytest.mark.parametrize("channels", [2, 5])
def test_a_set_of_other_channels_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], channels: int
) -> None:
    root = write_pictures(tmp_path / "data", _PARTS)
    arguments = arguments_of(_config(tmp_path, channels, root))
    line = check_refused(run_main(train_supernet, capsys, *arguments), "train-supernet")
    assert f"the space has in_channels {channels}, and {root / 'train' / 'a' / '000.png'} is a picture" in line
    digits = ("--data.name", "digits", "--data.root", "data")
    line = check_refused(run_main(train_supernet, capsys, *arguments, *digits), "train-supernet")
    assert f"an image of digits does not fit the space: it has 1 channel, and the network takes {channels}" in line
    assert not (tmp_path / "run").exists()


# Augmentation.


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 13])
def test_changes_of_place_are_the_same_in_every_channel(channels: int) -> None:
    one = torch.from_numpy(noise(0, 8, 8, 1)).permute(2, 0, 1)[None].expand(6, -1, -1, -1)
    settings = Augmentation(crop=2, flip=True, cutout=3)
    grey, wide = (
        augment(images, settings, torch.Generator().manual_seed(1))
        for images in (one, one.expand(-1, channels, -1, -1))
    )
    assert torch.equal(grey.expand(-1, channels, -1, -1), wide)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 9])
def test_randaugment_is_refused_by_name_where_it_has_no_colours(channels: int) -> None:
    config = RunConfig(data=DataConfig(randaugment=2))
    if channels in (1, 3):
        filled = with_data_defaults(config, micro_space(in_channels=channels))
        images = torch.from_numpy(noise(0, 8, 8, channels)).permute(2, 0, 1)[None].expand(64, -1, -1, -1)
        settings = Augmentation(randaugment=filled.data.randaugment, magnitude=15)
        assert augment(images, settings, torch.Generator().manual_seed(0)).shape == images.shape
    else:
        with pytest.raises(UserError, match=rf"data\.randaugment is 2; .* the space has in_channels {channels}"):
            with_data_defaults(config, micro_space(in_channels=channels))


@pytest.mark.parametrize("channels", _CHANNELS)
def test_ways_to_train_are_measured_on_images_of_the_spaces_channels(channels: int) -> None:
    space = _space(channels)
    recipe = dataclasses.replace(
        micro_recipe(space), normalisation=Normalisation((0.5,) * channels, (0.25,) * channels)
    )
    bench = bench_of(recipe, micro_cache(space).entries[0], torch.device("cpu"), threads=1)
    engine = bench.engine(Profile())
    assert engine._data.images.shape[1] == channels
    assert bench.rate(engine, 1) > 0
