"""What a node does with a message: which images are its own, what it refuses, and that it ends."""

import dataclasses
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.images.pictures import write_pictures
from helpers.runs.federation import MICRO, micro_space
from helpers.runs.flower import config_of, flower_config
from helpers.runs.simulation import largest, random_architectures, random_tensors, same_bytes, smallest
from PIL import Image

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.common.storage.cache_folder import kept_folder
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.networks.weights import Tensors, views
from fedpareto.supernet.space_file import space_to_mapping
from fedpareto.training.clients.trainer import LocalTrainer, recipe_of
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.data import run_images, sources
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.images import ImageSet, Normalisation, normalisation_of
from fedpareto.training.data.run_images import shares, split_of, used_images
from fedpareto.training.engines.flower import federation as connection
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.admission import ClientDescription
from fedpareto.training.engines.flower.node import answer
from fedpareto.training.engines.flower.wire import Request
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.execution.profile import Profile
from fedpareto.training.kernels import available
from fedpareto.training.local_objective import CoTraining
from fedpareto.training.messages import Task

_DIGITS = tuple("0123456789")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run of four clients; its images are kept in a folder of the test's own."""
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path / "kept"))
    (tmp_path / "data").mkdir()
    config = flower_config(tmp_path)
    data = DataConfig("digits", validation=0.1, crop=1, flip=False, cutout=0)
    return dataclasses.replace(config, data=data, partition=PartitionConfig())


def _request(config: RunConfig, kind: wire.MessageKind = "describe", **changes: Any) -> Request:
    request = Request(kind, 60.0, "fp32", config_to_mapping(config), space_to_mapping(MICRO), (), {}, [])
    return dataclasses.replace(request, **changes)


def _ask(request: Request, settings: dict[str, Any], tensors: Tensors | None = None) -> tuple[dict[str, Any], Tensors]:
    header, blob = answer(wire.encode(request), wire.make_blob(tensors or {}), settings)
    return wire.decode(header), wire.parse_blob(blob) if blob else {}


def _training(config: RunConfig, classes: tuple[str, ...] = _DIGITS, **changes: Any) -> tuple[Request, Tensors]:
    """Return a question to train the smallest network for an epoch, with its blob's tensors."""
    job = {"round": 3, "epochs": 1, "learning_rate": 0.05, "seed": 11, "work": {"kind": "plain"}}
    job["architecture"] = smallest().to_json()
    sliced = views(MICRO, random_tensors(), smallest())
    normalisation = {"mean": [0.3] * 3, "std": [0.4] * 3}
    request = _request(config, "train", classes=classes, normalisation=normalisation, jobs=[{**job, **changes}])
    return request, wire.joined([sliced])


def _kept() -> list[Path]:
    return sorted(kept_folder("images").iterdir())


def _split(config: RunConfig) -> tuple[ImageSet, Any]:
    listing = used_images(config)
    data = listing.read(Preparation(8))
    return data, split_of(config, data, shares(config, listing))


def _folder(root: Path, classes: dict[str, int]) -> Path:
    """Write images of noise, so many of each class."""
    generator = torch.Generator().manual_seed(0)
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = torch.randint(256, (8, 8, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(root / name / f"{number}.png")
    return root


# Which messages are read.


@pytest.mark.parametrize("changes", [{"protocol": 1}, {"package": "0.0.1"}, {"protocol": None}, {"protocol": 1.5}])
def test_another_version_is_refused_with_both_named(config: RunConfig, changes: dict[str, Any]) -> None:
    fields, tensors = _ask(_request(config, **changes), config_of(0))
    asked = {"protocol": wire.PROTOCOL, "package": Request.package, **changes}
    assert fields["kind"] == "version"
    assert fields["refused"] == (
        f"the server speaks protocol {asked['protocol']} of fedpareto {asked['package']}, this node protocol "
        f"{wire.PROTOCOL} of fedpareto {Request.package}; install the same version on both"
    )
    assert tensors == {}


def test_the_version_is_looked_at_before_anything_else(config: RunConfig) -> None:
    header = wire.encode({"protocol": 2, "package": "9", "a new field": 1})
    assert wire.decode(answer(header, b"", {"an": "odd setting"})[0])["kind"] == "version"


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"[" * 10**5, b"x" * (1 << 21)], ids=range(5))
def test_what_is_no_request_is_refused(header: bytes) -> None:
    fields = wire.decode(answer(header, b"", config_of(0))[0])
    assert fields["kind"] == "refused"
    assert fields["refused"].startswith("a header ")


def test_unknown_and_missing_fields_of_a_request_are_refused() -> None:
    for more in ({}, {"odd": 1}):
        header = wire.encode({"protocol": wire.PROTOCOL, "package": Request.package, **more})
        fields = wire.decode(answer(header, b"", config_of(0))[0])
        assert fields["kind"] == "refused"
        assert "unknown or missing fields" in fields["refused"]


def test_a_node_without_the_kernels_that_are_asked_for_says_so(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(available, "unavailable", lambda: "numba is not installed")
    asked = dataclasses.replace(config, execution=Profile(kernels="numba").chosen())
    request, tensors = _training(asked)
    fields, _ = _ask(request, config_of(0), tensors)
    assert fields["kind"] == "refused"
    assert fields["refused"] == (
        "execution.kernels numba is not possible: numba is not installed; or say --execution.kernels torch"
    )


def test_a_configuration_of_nonsense_is_refused(config: RunConfig) -> None:
    mapping = {**config_to_mapping(config), "rounds": -1}
    fields, _ = _ask(dataclasses.replace(_request(config), config=mapping), config_of(0))
    assert "rounds is -1; it must be at least 1" in fields["refused"]
    fields, _ = _ask(_request(config, space={"name": "odd"}), config_of(0))
    assert fields["kind"] == "refused"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "node-config partition-id is None; it must be the client's number, from 0"),
        ({"partition-id": -1}, "node-config partition-id is -1"),
        ({"partition-id": "0"}, "node-config partition-id is '0'"),
        ({"partition-id": True}, "node-config partition-id is True"),
        ({"partition-id": 1.0}, "node-config partition-id is 1.0"),
        ({"partition-id": 4}, "node-config partition-id is 4; the run has clients 0 to 3"),
        (
            {"partition-id": 0, "partition": 1},
            "node-config 'partition' is unknown; it may hold: partition-id",
        ),
        ({"partition-id": 0, "data-root": "a", "data-folder": "b"}, "node-config holds data-root and data-folder"),
        ({"partition-id": 0, "data-folder": "/no/such/folder"}, "there is no folder /no/such/folder"),
        ({"partition-id": 0, "device": "abacus"}, "abacus"),
    ],
    ids=range(10),
)
def test_a_node_that_is_set_up_wrongly_says_what_to_change(
    config: RunConfig, settings: dict[str, Any], words: str
) -> None:
    fields, tensors = _ask(_request(config), {"device": "cpu", **settings})
    assert fields["kind"] == "refused"
    assert words in fields["refused"]
    assert "\n" not in fields["refused"]
    assert tensors == {}


# A client's images.


@pytest.mark.parametrize("scheme", ["dirichlet", "iid"])
def test_a_client_has_exactly_the_images_of_its_partition(config: RunConfig, scheme: Any) -> None:
    config = dataclasses.replace(config, partition=dataclasses.replace(config.partition, scheme=scheme))
    data, split = _split(config)
    seen: list[int] = []
    for client in range(4):
        fields, _ = _ask(_request(config), config_of(client))
        own, held_out = split.clients[client], split.validation[client::4]
        assert (fields["client"], fields["examples"], fields["validation"]) == (client, len(own), len(held_out))
        assert fields["classes"] == list(_DIGITS)
        kept = safetensors.torch.load_file(_kept()[client])
        expected = data.subset(torch.tensor(own)), data.subset(torch.tensor(held_out))
        for part, images in zip(("training", "validation"), expected, strict=True):
            assert torch.equal(kept.pop(f"{part}.images"), images.loaded())
            assert torch.equal(kept.pop(f"{part}.labels"), images.labels)
        # Nobody else's images lie on the node.
        assert kept == {}
        seen += [*own, *held_out]
    assert sorted(seen) == list(range(len(data)))


def test_the_census_of_all_clients_is_the_normalisation_of_all_training_images(config: RunConfig) -> None:
    data, split = _split(config)
    described = {}
    for client in range(4):
        fields, _ = _ask(_request(config), config_of(client))
        pixels = tuple(tuple(counts) for counts in fields["pixels"])
        described[client] = ClientDescription(client, fields["examples"], fields["validation"], _DIGITS, pixels)
    census = connection._census(described, 4)
    everything = data.subset(torch.tensor([index for members in split.clients for index in members]))
    assert census.normalisation == normalisation_of(everything) == split.normalisation
    assert list(census.examples) == list(split.sizes)
    assert census.classes == split.classes
    assert sum(census.validation) == len(split.validation)


def test_one_clients_pixels_are_no_more_than_half_of_everyones_normalisation(config: RunConfig) -> None:
    def of(examples: int, value: int) -> ClientDescription:
        counts = [0] * 256
        counts[value] = examples
        return ClientDescription(0, examples, 1, _DIGITS, (tuple(counts),))

    def mean(*clients: ClientDescription) -> float:
        return connection._census(dict(enumerate(clients)), 4).normalisation.mean[0]

    # Images of one colour, as many as are believed beside 40 of the others.
    assert mean(of(10, 0), of(20, 0), of(10, 0), of(1000, 255)) == pytest.approx(0.5)
    assert mean(of(10, 0), of(20, 0), of(10, 0), of(39, 255)) == 39 / 79
    # Of two neither can be told from the other.
    assert mean(of(10, 0), of(30, 255)) == 0.75


def test_kept_images_are_read_without_the_decoder(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _ask(_request(config), config_of(1))
    (path,) = _kept()
    before = path.stat()
    monkeypatch.delattr(run_images, "used_images")
    monkeypatch.delattr(sources, "list_class_folders")
    assert _ask(_request(config), config_of(1)) == first
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("change", ["more", "fewer", "other"])
def test_images_are_decoded_again_when_a_file_changes(config: RunConfig, tmp_path: Path, change: str) -> None:
    folder = _folder(tmp_path / "mine", {"cat": 20, "dog": 20})
    settings = {"partition-id": 0, "device": "cpu", "data-folder": str(folder)}
    first, _ = _ask(_request(config), settings)
    assert _ask(_request(config), settings)[0] == first
    assert len(_kept()) == 1
    picture = folder / "cat" / "0.png"
    if change == "fewer":
        picture.unlink()
    else:
        path = folder / "cat" / "new.png" if change == "more" else picture
        Image.new("RGB", (8, 8), (9, 8, 7)).save(path)
    again, _ = _ask(_request(config), settings)
    images = {"more": 41, "fewer": 39, "other": 40}[change]
    assert again["examples"] + again["validation"] == images
    assert again["pixels"] != first["pixels"]


def test_images_behind_a_link_are_the_clients_and_are_read_again_when_they_change(
    config: RunConfig, tmp_path: Path
) -> None:
    folder = _folder(tmp_path / "mine", {"cat": 20, "dog": 20})
    _folder(tmp_path / "elsewhere", {"more": 5})
    (folder / "cat" / "link").symlink_to(tmp_path / "elsewhere" / "more")
    (folder / "cat" / "loop").symlink_to(folder)
    settings = {"partition-id": 0, "device": "cpu", "data-folder": str(folder)}
    first, _ = _ask(_request(config), settings)
    assert first["examples"] + first["validation"] == 45
    Image.new("RGB", (8, 8), (9, 8, 7)).save(tmp_path / "elsewhere" / "more" / "0.png")
    assert _ask(_request(config), settings)[0]["pixels"] != first["pixels"]


def test_what_a_tool_leaves_on_a_node_is_skipped_and_said(
    config: RunConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = _folder(tmp_path / "mine", {"cat": 20, "dog": 20})
    settings = {"partition-id": 0, "device": "cpu", "data-folder": str(folder)}
    first, _ = _ask(_request(config), settings)
    _folder(folder, {".thumbnails": 2, "__MACOSX": 2})
    (folder / "cat" / "._0.png").write_bytes(b"mac")
    (folder / "cat" / "notes.txt").write_text("mine")
    capfd.readouterr()
    assert _ask(_request(config), settings)[0] == first
    said = f"skipped in {folder}: 3 hidden or left by a tool (e.g. .thumbnails), 1 no image (cat/notes.txt)\n"
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("client", [0, 3])
def test_a_validation_folder_of_the_data_set_is_shared_among_the_clients(
    config: RunConfig, tmp_path: Path, client: int
) -> None:
    root = tmp_path / "set"
    for part, count in (("train", 48), ("val", 5)):
        _folder(root / part, {"cat": count, "dog": count})
    data = DataConfig("imagefolder", crop=1, flip=False, cutout=0)
    spread = dataclasses.replace(config, data=data, partition=PartitionConfig(scheme="iid"))
    fields, _ = _ask(_request(spread), {**config_of(client), "data-root": str(root)})
    # Ten are held out; every fourth is one client's.
    assert fields["validation"] == {0: 3, 3: 2}[client]
    given = dataclasses.replace(spread, data=dataclasses.replace(data, validation=0.25))
    fields, _ = _ask(_request(given), {**config_of(client), "data-root": str(root)})
    assert fields["validation"] == 6


@pytest.mark.parametrize("channels", [1, 5])
def test_a_client_has_images_of_the_spaces_channels(config: RunConfig, tmp_path: Path, channels: int) -> None:
    folder = write_pictures(tmp_path, {"mine": {"cat": 20, "dog": 20}}, channels) / "mine"
    settings = {"partition-id": 0, "device": "cpu", "data-folder": str(folder)}
    space = space_to_mapping(micro_space(in_channels=channels))
    fields, _ = _ask(_request(config, space=space), settings)
    assert [sum(counts) for counts in fields["pixels"]] == [fields["examples"] * 64] * channels
    refused, _ = _ask(_request(config, space=space_to_mapping(micro_space(in_channels=4))), settings)
    assert f"it has {counted(channels, 'channel')}, and the network takes 4" in refused["refused"]


def test_another_fit_is_another_preparation(config: RunConfig, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, {"mine": {"cat": 20, "dog": 20}}, size=(8, 12)) / "mine"
    settings = {"partition-id": 0, "device": "cpu", "data-folder": str(folder)}
    told = [
        _ask(_request(dataclasses.replace(config, data=dataclasses.replace(config.data, fit=fit))), settings)[0][
            "pixels"
        ]
        for fit in ("crop", "pad", "stretch")
    ]
    assert told[0] != told[1] != told[2] != told[0]


def test_kept_images_are_one_run_settings_and_one_nodes(config: RunConfig) -> None:
    _ask(_request(config), config_of(0))
    others = [
        dataclasses.replace(config, seed=9),
        dataclasses.replace(config, data=dataclasses.replace(config.data, validation=0.2)),
        dataclasses.replace(config, data=dataclasses.replace(config.data, images=800)),
        dataclasses.replace(config, clients=ClientsConfig(count=5, per_round=2)),
        dataclasses.replace(config, partition=dataclasses.replace(config.partition, scheme="iid")),
    ]
    for number, other in enumerate(others, 2):
        _ask(_request(other), config_of(0))
        assert len(_kept()) == number
    # Rounds and learning rates decide no image.
    _ask(_request(dataclasses.replace(config, rounds=99)), config_of(0))
    assert len(_kept()) == 6


def test_a_folder_of_ones_own_is_described_and_trained_with(config: RunConfig, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "mine", {"3": 20, "7": 24})
    settings = {"partition-id": 2, "device": "cpu", "data-folder": str(folder)}
    fields, _ = _ask(_request(config), settings)
    assert (fields["client"], fields["examples"], fields["validation"]) == (2, 40, 4)
    assert fields["classes"] == ["3", "7"]
    # Its two classes are the fourth and the eighth of the run's.
    kept = safetensors.torch.load_file(_kept()[0])
    labels = torch.tensor([3, 7])[kept["training.labels"]]
    request, tensors = _training(config)
    told, got = _ask(request, settings, tensors)
    own = ImageSet(kept["training.images"], labels, _DIGITS)
    expected = _train_here(config, request, own)
    assert told["jobs"][0]["examples"] == 40
    assert same_bytes(got, expected)
    assert told["jobs"][0]["architecture"] == smallest().to_json()
    assert told["jobs"][0]["round"] == 3


def test_a_client_co_trains_over_flower_as_in_one_process(config: RunConfig, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "mine", {"3": 20, "7": 24})
    settings = {"partition-id": 2, "device": "cpu", "data-folder": str(folder)}
    _ask(_request(config), settings)
    kept = safetensors.torch.load_file(_kept()[0])
    own = ImageSet(kept["training.images"], torch.tensor([3, 7])[kept["training.labels"]], _DIGITS)
    drawn = tuple(random_architectures(4))
    objective = CoTraining((smallest(),), drawn, 0.5, 2.0)
    request, _ = _training(config, architecture=largest().to_json(), work=objective.to_json())
    told, got = _ask(request, settings, wire.joined([random_tensors()]))
    recipe = recipe_of(config, MICRO, Normalisation((0.3,) * 3, (0.4,) * 3))
    task = Task(3, 2, largest(), random_tensors(), 1, 0.05, request.jobs[0]["seed"], objective)
    update = LocalTrainer(recipe, Profile(), torch.device("cpu")).train(task, own)
    assert same_bytes(got, wire.joined([update.tensors]))
    assert told["jobs"][0]["compute"] == update.compute > 0


def test_a_client_takes_no_more_steps_than_it_is_asked_for(config: RunConfig, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "mine", {"3": 20, "7": 24})
    settings = {"partition-id": 2, "device": "cpu", "data-folder": str(folder)}
    questions = [_training(config, epochs=2, steps=steps) for steps in (None, 1, 3, 99)]
    done = [_ask(request, settings, tensors)[0]["jobs"][0] for request, tensors in questions]
    every, one, three, most = (job["compute"] for job in done)
    assert one == macs_of(MICRO, smallest()) * config.client.batch
    assert three == 3 * one
    assert most == every == 4 * one


def _train_here(config: RunConfig, request: Request, own: ImageSet) -> Tensors:
    recipe = recipe_of(config, MICRO, Normalisation((0.3,) * 3, (0.4,) * 3))
    sliced = views(MICRO, random_tensors(), smallest())
    task = Task(3, 2, smallest(), sliced, 1, 0.05, request.jobs[0]["seed"])
    return wire.joined([LocalTrainer(recipe, Profile(), torch.device("cpu")).train(task, own).tensors])


def test_a_class_the_run_does_not_have_is_refused_by_name(config: RunConfig, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "mine", {"3": 20, "zebra": 20})
    settings = {"partition-id": 2, "device": "cpu", "data-folder": str(folder)}
    fields, _ = _ask(*(_training(config)[:1]), settings)
    assert fields["kind"] == "refused"
    assert fields["refused"] == (
        "client 2 has images of 'zebra'; the run's classes, settled when it started, are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    )


def test_fewer_images_than_a_batch_are_one_batch_and_too_few_are_refused(config: RunConfig, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "mine", {"3": 8, "7": 8})
    settings = {"partition-id": 2, "device": "cpu", "data-folder": str(folder)}
    fields, _ = _ask(_request(config), settings)
    assert fields["examples"] == 14 < config.client.batch
    many = dataclasses.replace(config, partition=PartitionConfig("natural", min_images=15))
    fields, _ = _ask(_request(many), settings)
    assert fields["refused"] == "client 2 has 14 images; it needs at least 15"


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0}, {"steps": "2"}, {"steps": True}, {"steps": 1.5},
        {"round": 0}, {"round": "1"}, {"epochs": 0}, {"epochs": True}, {"learning_rate": None}, {"seed": -1},
        {"seed": 1.5}, {"work": None}, {"work": {"kind": "magic"}}, {"architecture": None},
        {"architecture": {"stages": []}},
    ],
    ids=str,
)  # fmt: skip
def test_a_job_of_nonsense_is_refused(config: RunConfig, changes: dict[str, Any]) -> None:
    fields, tensors = _ask(_training(config, **changes)[0], config_of(0), _training(config)[1])
    assert fields["kind"] == "refused"
    assert "\n" not in fields["refused"]
    assert tensors == {}


@pytest.mark.slow
def test_bf16_sends_what_changed(config: RunConfig) -> None:
    request, tensors = _training(config)
    _, whole = _ask(request, config_of(0), tensors)
    sent = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    exact = {name: tensor.float() for name, tensor in sent.items()}
    _, trained = _ask(request, config_of(0), exact)
    _, changed = _ask(dataclasses.replace(request, wire_dtype="bf16"), config_of(0), sent)
    assert not same_bytes(whole, trained)
    for name, tensor in changed.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, (trained[name] - exact[name]).bfloat16())


# What does not end by itself.


def test_a_full_memory_is_refused_as_that(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, task: Task, data: object) -> None:
        raise OutOfMemoryError(task.architecture, 16, torch.device("cpu"))

    monkeypatch.setattr(LocalTrainer, "train", full)
    fields, _ = _ask(_training(config)[0], config_of(0), _training(config)[1])
    assert fields == {"refused": "out of memory on cpu at batch 16", "kind": "memory", "protocol": wire.PROTOCOL}


def test_a_job_that_hangs_is_answered_at_the_deadline(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    _ask(_request(config), config_of(0))

    def hang(*args: object) -> None:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(LocalTrainer, "train", hang)
    before = signal.getsignal(signal.SIGALRM)
    request, tensors = _training(config)
    started = time.monotonic()
    fields, _ = _ask(dataclasses.replace(request, deadline=0.5), config_of(0), tensors)
    assert 0.5 <= time.monotonic() - started < 10
    assert (fields["kind"], fields["refused"]) == ("timeout", "the client did not finish within 0.5 s")
    # Nothing goes off later.
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "hang",
    [
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); time.sleep(100)",
        # Waits in C with Python's lock, and goes on waiting when a signal comes.
        "[ctypes.PyDLL(None).pthread_mutex_lock(mutex) for _ in range(2)]",
    ],
    ids=["blocked", "in C"],
)
def test_a_process_that_notices_no_deadline_is_ended(tmp_path: Path, hang: str) -> None:
    code = f"""
        import ctypes, signal, time
        from fedpareto.training.engines.flower import node
        node._GRACE = 0.5
        mutex = ctypes.create_string_buffer(64)
        with node._deadline(0.5):
            print("hanging", flush=True)
            {hang}
        print("not here")
    """
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "hanging\n"
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert time.monotonic() - started < 50
