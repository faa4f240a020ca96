import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from helpers.images.pictures import noise, write_pictures
from helpers.runs.federation import MICRO, micro_config, micro_space
from helpers.runs.simulation import Recorder, same_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.evaluation import EvaluationConfig
from fedpareto.training.config.partition import PartitionConfig, Scheme
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.reading import Files
from fedpareto.training.data.images import DataError
from fedpareto.training.data.run_images import measured_positions, preparation_of, shares, used_images, with_validation
from fedpareto.training.data.split import drawn
from fedpareto.training.engines.simulation.federation import SimulatedFederation, StoredFederation, new_simulation
from fedpareto.training.execution.profile import Profile
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.runs.folder import read_run_config, read_split
from fedpareto.training.setup import Prepared, assemble, new_run, resumed_run


def _listing(counts: list[int], held_out: int = 0) -> Listing:
    """Images of classes of the given sizes, then those held out; their files are not there."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    labels += [number % len(counts) for number in range(held_out)]
    paths = tuple(Path(str(number)) for number in range(len(labels)))
    return Listing(torch.tensor(labels), tuple("abcdefgh"[: len(counts)]), Files(paths), held_out)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# A draw of the images.


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=6), st.integers(0, 9), st.data())
def test_a_draw_has_the_size_asked_for_and_the_shares_of_the_classes(
    counts: list[int], held_out: int, data: st.DataObject
) -> None:
    listing = _listing(counts, held_out)
    total, least = sum(counts), 2 * len(counts)
    size = data.draw(st.integers(least, total))
    chosen = drawn(listing, size, _generator())
    assert len(chosen) == size + held_out
    # What the data set holds out stays, and stays at the end.
    assert chosen.held_out == held_out
    assert chosen.pictures.paths is not None
    assert [path.name for path in chosen.pictures.paths[size:]] == [str(total + number) for number in range(held_out)]
    positions = [int(path.name) for path in chosen.pictures.paths]
    assert positions == sorted(set(positions))
    assert torch.equal(chosen.labels, listing.labels[positions])
    found = Counter(chosen.labels[:size].tolist())
    for label, count in enumerate(counts):
        assert 2 <= found[label] <= count
        # Two of each come first; they may take from others what those would have.
        assert abs(found[label] - size * count / total) <= 1 + least


def test_the_generator_decides_what_is_drawn() -> None:
    first, again, other = (drawn(_listing([50, 50]), 20, _generator(seed)).pictures.paths for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("count", [1, 5, 41, 1000])
def test_a_draw_of_more_than_there_is_or_of_too_few_is_refused(count: int) -> None:
    words = (
        f"data.images is {count:,}; allowed: 6 (two of each of 3 classes) to the 40 training images there; "
        "leave it out to use all"
    )
    with pytest.raises(DataError) as caught:
        drawn(_listing([20, 10, 10], held_out=5), count, _generator())
    assert str(caught.value) == words


def _digits(**data: Any) -> RunConfig:
    return RunConfig(data=DataConfig("digits", **data), client=ClientConfig(batch_size=8), clients=ClientsConfig(4, 2))


def test_the_share_held_out_is_of_the_images_that_are_used() -> None:
    config = _digits(images=200, validation=0.2)
    federation = new_simulation(config, MICRO)
    assert len(federation.data) == 200
    assert len(federation.split.validation) == 40
    assert sum(federation.split.sizes) == 160
    assert federation.split.digest == federation.data.digest()
    everyone = [*federation.split.validation, *(index for members in federation.split.clients for index in members)]
    assert sorted(everyone) == list(range(200))


# All images in one place.


# Digits do not say whose each of them is.
@pytest.mark.parametrize("scheme", [scheme for scheme in get_args(Scheme) if scheme != "natural"])
def test_pooled_images_are_those_that_the_clients_would_have(scheme: Scheme) -> None:
    # Shards and few classes leave images to nobody.
    config = dataclasses.replace(
        _digits(images=600), partition=PartitionConfig(scheme, classes_per_client=1, shards_per_client=7)
    )
    spread = new_simulation(dataclasses.replace(config, clients=ClientsConfig(count=4, per_round=2)), MICRO)
    pooled = new_simulation(
        dataclasses.replace(config, clients=ClientsConfig(count=4, per_round=1, data="pooled")), MICRO
    )
    (everything,) = pooled.split.clients
    assert list(everything) == sorted(index for members in spread.split.clients for index in members)
    left = 600 - len(everything) - len(pooled.split.validation)
    assert (left > 0) == (scheme in ("shard", "pathological"))
    assert pooled.split.validation == spread.split.validation
    assert pooled.split.normalisation == spread.split.normalisation
    assert pooled.split.digest == spread.split.digest


def test_pooled_images_train_one_client_and_a_resumed_run_ends_alike(tmp_path: Path, root: Path) -> None:
    finished = []
    for name, rounds in (("whole", None), ("halves", 1)):
        (tmp_path / name).mkdir()
        config = dataclasses.replace(
            _config(tmp_path / name, root),
            method="fedavg",
            clients=ClientsConfig(count=2, per_round=1, data="pooled"),
            evaluation=EvaluationConfig(calibration_images=6),
        )
        prepared, _ = _prepared(config)
        assert prepared.federation.split.sizes == [44]
        finished.append(_trained(prepared, rounds))
    folder = prepared.folder
    assert not same_bytes(*finished)
    assert same_bytes(_trained(resumed_run(folder, read_run_config(folder), SILENT)), finished[0])


# Folders of images.


_PARTS = {"train": {"a": 24, "b": 24}, "test": {"a": 3, "b": 3}}


def _config(folder: Path, root: Path, **data: Any) -> RunConfig:
    return micro_config(
        folder,
        micro_space(classes=2),
        rounds=2,
        data=DataConfig("imagefolder", str(root), **data),
        clients=ClientsConfig(count=2, per_round=2),
        client=ClientConfig(epochs=1, batch_size=4, lr=0.05),
    )


def _prepared(config: RunConfig) -> tuple[Prepared, list[str]]:
    remarks: list[str] = []
    return new_run(config, ProgressListener(remark=remarks.append)), remarks


def _data(prepared: Prepared) -> SimulatedFederation:
    assert isinstance(prepared.federation, SimulatedFederation)
    return prepared.federation


def _trained(prepared: Prepared, rounds: int | None = None) -> Tensors:
    """Train on, up to a round; return the supernet."""
    recorder = Recorder()
    merged = itertools.count(1)
    run = assemble(prepared, recorder, lambda: rounds is not None and next(merged) >= rounds)
    start = prepared.checkpoint
    train(run, start.state, start.models)
    return dict(load_checkpoint(newest_checkpoint(prepared.folder), prepared.space).models.supernet)


def _spoil(paths: set[Path]) -> None:
    for path in paths:
        path.write_bytes(b"would not decode")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "data", _PARTS)


def test_only_the_images_that_are_used_are_decoded(tmp_path: Path, root: Path) -> None:
    config = _config(tmp_path, root, images=20, validation=0.2)
    used = used_images(config).pictures.paths
    assert used is not None
    assert len(used) == 20
    _spoil({*root.rglob("*.png")} - {*used})
    prepared, _ = _prepared(config)
    assert _data(prepared).data.paths == used
    # So it is when the run goes on.
    again = resumed_run(prepared.folder, read_run_config(prepared.folder), SILENT)
    assert _data(again).data.digest() == _data(prepared).data.digest()


def test_a_stored_federation_reads_what_validates_and_calibrates_and_no_more(tmp_path: Path, root: Path) -> None:
    config = _config(tmp_path, root)
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, calibration_images=6))
    prepared, _ = _prepared(config)
    expected = _data(prepared).evaluator(prepared.config, prepared.space)
    stored = StoredFederation(prepared.folder, prepared.config, prepared.space, read_split(prepared.folder))
    kept = measured_positions(prepared.config, stored.split).tolist()
    everything = _data(prepared).data.paths
    assert everything is not None
    assert len(kept) == len(stored.split.validation) + 6 < len(everything)
    _spoil({*everything} - {everything[position] for position in kept})
    found = stored.evaluator(prepared.config, prepared.space)
    for name in ("calibration", "held_out"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.paths == theirs.paths
    # The clients' images are read for what trains, and are checked.
    with pytest.raises(DataError, match="cannot decode"):
        stored.engine(prepared.config, prepared.space, Profile())


@pytest.mark.parametrize("change", ["pixel", "more", "fewer", "class"])
@pytest.mark.parametrize("images", [None, 20])
def test_other_images_than_the_runs_are_refused(tmp_path: Path, root: Path, change: str, images: int | None) -> None:
    prepared, _ = _prepared(_config(tmp_path, root, images=images))
    stored = StoredFederation(prepared.folder, prepared.config, prepared.space, read_split(prepared.folder))
    paths = _data(prepared).data.paths
    assert paths is not None
    path = paths[measured_positions(prepared.config, stored.split)[0]]
    if change == "fewer":
        path.unlink()
    elif change == "class":
        write_pictures(root, {"train": {"c": 4}, "test": {"c": 4}})
    else:
        Image.fromarray(noise(99)).save(path if change == "pixel" else path.with_name("0.png"))
    for ask in (
        lambda: resumed_run(prepared.folder, prepared.config, SILENT),
        lambda: stored.evaluator(prepared.config, prepared.space),
    ):
        with pytest.raises(UserError, match=r"the images in .* are not those .* was started with; restore them"):
            ask()


def test_a_run_of_an_older_program_draws_its_images_as_that_did(tmp_path: Path, root: Path) -> None:
    config = _config(tmp_path, root, images=20)
    prepared, _ = _prepared(config)
    everything = used_images(dataclasses.replace(config, data=DataConfig("imagefolder", str(root))))
    data = everything.read(Preparation(8))
    # It knew positions among all images, of which it had read all.
    split = dataclasses.replace(
        read_split(prepared.folder), digest=data.digest(), validation=[3, 40], clients=[[0, 1], [47]], measured=None
    )
    stored = StoredFederation(prepared.folder, prepared.config, prepared.space, split)
    found = stored.evaluator(prepared.config, prepared.space)
    assert torch.equal(found.held_out.loaded(), data.loaded()[[3, 40]])
    assert sorted(map(str, found.calibration.paths or ())) == sorted(str((data.paths or ())[at]) for at in (0, 1, 47))


# A validation split of the data's own.


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_folder_of_validation_images_is_the_validation_split(tmp_path: Path, root: Path, name: str) -> None:
    write_pictures(root, {name: {"a": 2, "b": 3}})
    prepared, remarks = _prepared(_config(tmp_path, root))
    said = [remark for remark in remarks if "validation" in remark]
    assert said == [f"validation images are those of {root / name}; none of {root / 'train'} is held out"]
    evaluator = _data(prepared).evaluator(prepared.config, prepared.space)
    assert evaluator.held_out.paths == tuple(sorted((root / name).rglob("*.png")))
    assert evaluator.held_out.labels.tolist() == [0, 0, 1, 1, 1]
    assert sum(prepared.federation.split.sizes) == 48
    assert {(path.parents[1].name) for path in evaluator.calibration.paths or ()} == {"train"}
    assert read_run_config(prepared.folder).data.validation is None
    # It is said once.
    again: list[str] = []
    resumed_run(prepared.folder, read_run_config(prepared.folder), ProgressListener(remark=again.append))
    assert [remark for remark in again if "validation" in remark] == []


def test_a_share_beside_a_folder_of_validation_images_is_refused(tmp_path: Path, root: Path) -> None:
    write_pictures(root, {"val": {"a": 2, "b": 3}})
    with pytest.raises(UserError) as caught:
        new_run(_config(tmp_path, root, validation=0.1), SILENT)
    assert str(caught.value) == (
        f"data.validation is 0.1, and {root / 'val'} holds the validation images; leave data.validation out, or rename "
        "the folder"
    )
    assert not (tmp_path / "run").exists()
    write_pictures(root, {"validation": {"a": 2, "b": 3}})
    with pytest.raises(DataError, match=r"holds val/ and validation/; keep one of them for validation"):
        new_run(_config(tmp_path, root), SILENT)


def test_a_class_that_validation_lacks_is_refused_by_name(tmp_path: Path, root: Path) -> None:
    write_pictures(root, {"val": {"a": 2}})
    with pytest.raises(DataError, match=r"val lacks the class 'b', which .*train has"):
        new_run(_config(tmp_path, root), SILENT)


def test_a_folder_of_validation_images_that_comes_later_changes_no_run(tmp_path: Path, root: Path) -> None:
    prepared, _ = _prepared(_config(tmp_path, root))
    assert read_run_config(prepared.folder).data.validation == 0.1
    write_pictures(root, {"val": {"a": 2, "b": 2}})
    again = resumed_run(prepared.folder, read_run_config(prepared.folder), SILENT)
    assert _data(again).data.digest() == _data(prepared).data.digest()


@pytest.mark.parametrize("own", [False, True])
def test_a_run_that_is_resumed_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path, root: Path, own: bool) -> None:
    if own:
        write_pictures(root, {"val": {"a": 4, "b": 4}})
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    whole = _trained(_prepared(_config(tmp_path / "whole", root, images=24, fit="pad"))[0])
    halves, _ = _prepared(_config(tmp_path / "halves", root, images=24, fit="pad"))
    assert not same_bytes(_trained(halves, rounds=1), whole)
    folder = halves.folder
    assert same_bytes(_trained(resumed_run(folder, read_run_config(folder), SILENT)), whole)


# Preparation.


def test_the_fit_is_the_runs_for_good(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data", _PARTS, size=(8, 12))
    prepared, remarks = _prepared(_config(tmp_path, root, fit="pad"))
    (said,) = [remark for remark in remarks if "square" in remark]
    assert said.startswith("not square: 48 of 48 pictures")
    assert "padded with white" in said
    config = read_run_config(prepared.folder)
    assert config.data.fit == "pad"
    # White above and below.
    assert bool((_data(prepared).data.loaded()[:, :, 0] == 255).all())
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, fit="crop"))
    with pytest.raises(UserError, match=r"data\.fit is crop, but .* was trained with pad"):
        resumed_run(prepared.folder, other, SILENT)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_become_what_the_space_takes(channels: int) -> None:
    space = micro_space(in_channels=channels, resolutions=(6, 8))
    config = RunConfig(data=DataConfig(fit="stretch"))
    assert preparation_of(config, space) == Preparation(8, channels, "stretch")


def test_nothing_is_decoded_before_the_clients_are_known_to_have_enough(tmp_path: Path, root: Path) -> None:
    _spoil({*root.rglob("*.png")})
    config = dataclasses.replace(_config(tmp_path, root), clients=ClientsConfig(count=30, per_round=2))
    with pytest.raises(UserError, match="cannot split"):
        new_run(config, SILENT)


def test_a_set_without_validation_images_of_its_own_has_a_share_held_out() -> None:
    assert with_validation(DataConfig("digits")).validation == 0.1
    assert with_validation(DataConfig("digits", validation=0.3)).validation == 0.3
    listing = used_images(_digits())
    assert listing.held_out == 0
    assert len(shares(_digits(), listing).validation) == pytest.approx(0.1 * len(listing), abs=10)
