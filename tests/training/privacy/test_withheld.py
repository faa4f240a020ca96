"""Attacks on what a private run records: nothing beside its noised supernet depends on clients' images."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.runs.federation import MICRO, micro_config, read_metrics
from helpers.runs.simulation import recorder, short_config, simulated_run, spoiled_run, train_run
from helpers.trust.private import client_images, federation_of, hold_supernet_still
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import read_yaml_mapping
from fedpareto.supernet.common.provenance import PROVENANCE
from fedpareto.supernet.common.storage.files import record, write_text
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.rules.changes import changed_fields, with_former_statistics
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.data.images import ImageSet, normalisation_of
from fedpareto.training.data.run_images import Shares, calibration_positions, split_of
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.messages import Failure, Task, Update
from fedpareto.training.runs.checkpoint import newest_checkpoint
from fedpareto.training.runs.folder import CONFIG, METRICS, read_run_config, read_split
from fedpareto.training.session import run_session, tell_end
from fedpareto.training.setup import new_run, resumed_run
from fedpareto.training.trackers.records import RoundRecord, record_from_json
from fedpareto.training.trackers.withheld import public_record

#: What the honest clients of these federations have never said.
_LOSS, _COUNT, _MACS, _SECONDS = 0.123456789, 31337, 987654321, 4.56789
_REASON = "its 7777777 images are too dark"


def _trained(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    """Train a run as the command does; return its folder, and all it has said, without the names of its files."""
    capsys.readouterr()
    tell_end(run_session(config, None, ends_process=False))
    folder = Path(str(config.output))
    told = " ".join("".join(capsys.readouterr()).split())
    return folder, told.replace(str(folder.parent), "HERE")


def _dark(first: int) -> Callable[[Any, Iterable[Task]], Iterator[Update | Failure]]:
    """Return an engine's work in which a client whose images are dark fails."""
    honest = InProcessEngine.run

    def run(engine: InProcessEngine, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        for answer in honest(engine, tasks):
            assert isinstance(answer, Update)
            client = answer.task.client
            if client == first and engine._images(client).loaded().float().mean() < 1:
                yield Failure(answer.task, "error", f"its {engine.examples(client)} images are too dark")
            else:
                yield answer

    return run


def _left(folder: Path) -> dict[str, Any]:
    """Return what a run leaves for others to read: its records, its checkpoint's state, the normalisation."""
    state = json.loads((newest_checkpoint(folder) / "state.json").read_text())["state"]
    del state["wandb_id"]
    normalisation = json.loads((folder / "partition.json").read_text())["normalisation"]
    return {"metrics": (folder / METRICS).read_bytes(), "state": state, "normalisation": normalisation}


_OTHERS: dict[str, NDArray[np.uint8]] = {
    "other images": client_images(50),
    "black images, at which the client fails": np.zeros_like(client_images()),
    "white images": np.full_like(client_images(), 255),
    "thrice the images": client_images(51, 120),
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Callable[[pytest.CaptureFixture[str]], Any]:
    """What the federation leaves that all others are compared with, trained once."""
    kept: list[Any] = []

    def trained(capsys: pytest.CaptureFixture[str]) -> Any:
        if not kept:
            folder, told = _trained(federation_of(tmp_path_factory.mktemp("one"), client_images()), capsys)
            kept.append((_left(folder), told))
        return kept[0]

    return trained


@pytest.mark.parametrize(
    "name", [name if "black" in name else pytest.param(name, marks=pytest.mark.slow) for name in _OTHERS]
)
def test_federations_that_differ_in_a_client_leave_the_same_records(
    name: str, one: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hold_supernet_still(monkeypatch)
    monkeypatch.setattr(InProcessEngine, "run", _dark(0))
    (left, told), (folder, also_told) = one(capsys), _trained(federation_of(tmp_path, _OTHERS[name]), capsys)
    assert _left(folder) == left
    assert also_told == told
    assert "for each client; it covers the run's records too" in told
    assert "not against the server, which sees every update" in told
    assert "MACs of forward passes" not in told
    assert "40 images" not in told
    assert all(probe["accuracy"] > 0 for probe in read_metrics(folder)[-1]["probes"])
    assert all(probe.keys() == {"macs", "params", "accuracy"} for probe in read_metrics(folder)[-1]["probes"])


def test_exact_statistics_tell_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The attack above works where nothing is withheld."""
    hold_supernet_still(monkeypatch)
    (one, told), (other, _) = (
        _trained(federation_of(tmp_path / name, images, "exact"), capsys)
        for name, images in (("one", client_images()), ("other", client_images(50)))
    )
    first, second = _left(one), _left(other)
    assert "for each client; it does not cover the exact statistics of clients' images" in told
    assert first["normalisation"] != second["normalisation"]
    assert first["metrics"] != second["metrics"]
    losses = [[record["train_loss"] for record in read_metrics(folder)] for folder in (one, other)]
    assert losses[0] != losses[1]


@given(
    seed=st.integers(0, 2**31),
    pixels=st.lists(st.integers(0, 255), min_size=1, max_size=4),
    count=st.integers(20, 60),
)
@settings(max_examples=40, deadline=None)
def test_normalisation_and_calibration_are_those_of_the_servers_own_images(
    seed: int, pixels: list[int], count: int
) -> None:
    """Whatever images the clients have, however many: pixels are normalised alike, and the same ones calibrate."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randint(256, (20, 3, 8, 8), generator=generator, dtype=torch.uint8)
    theirs = torch.tensor(pixels, dtype=torch.uint8).repeat(count)[: 40 + count].view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    theirs = torch.cat([theirs, torch.zeros(40, 3, 8, 8, dtype=torch.uint8)])
    data = ImageSet(torch.cat([own, theirs]), torch.zeros(20 + len(theirs), dtype=torch.int64), ("a",))
    given_ = Shares(range(20), [range(20, 40), range(40, 20 + len(theirs))])
    private = RunConfig(privacy=PrivacyConfig(clip=1.0, noise=1.0))
    split = split_of(private, data, given_)
    assert split.normalisation == normalisation_of(data.subset(torch.arange(20)))
    assert set(calibration_positions(private, split).tolist()) <= set(range(20))
    exact = dataclasses.replace(private, privacy=PrivacyConfig(clip=1.0, noise=1.0, statistics="exact"))
    assert split_of(exact, data, given_).normalisation == normalisation_of(data.subset(torch.arange(20, len(data))))
    assert set(calibration_positions(exact, split).tolist()) <= set(range(20, len(data)))


def _telling(update: Update) -> Update | Failure:
    """Let a client say what nobody else says, in every field that clients fill in, or fail with a telling reason."""
    if update.task.client % 2:
        return Failure(update.task, "error", _REASON)
    return dataclasses.replace(update, loss=_LOSS, examples=_COUNT, compute=_MACS, sgd_seconds=_SECONDS)


@pytest.mark.parametrize("statistics", ["withheld", "exact"])
def test_nothing_that_a_client_says_is_in_any_file_of_a_run(
    statistics: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = short_config(privacy=PrivacyConfig(clip=0.5, noise=0.3, statistics=statistics))
    run, _ = spoiled_run(tmp_path, _telling, config, noise_key=7)
    train_run(run)
    records = recorder(run).records
    lines = "".join(json.dumps(record.to_json()) for record in records)
    texts = [path.read_text() for path in tmp_path.rglob("*.json")]
    said = " ".join([lines, *texts, *"".join(capsys.readouterr())])
    traces = [str(_LOSS), str(_COUNT), str(_MACS), str(_SECONDS), "7777777", '"error"', '"examples"']
    found = [trace for trace in traces if trace in said]
    if statistics == "exact":
        assert found == traces
        assert all(record.clipped is not None for record in records)
        return
    assert found == []
    for each in records:
        assert (each.train_loss, each.seconds, each.sgd_seconds, each.overhead_share) == (None,) * 4
        assert (each.compute, each.clipped, each.failures) == (0, None, {})
        assert all(client.keys() == {"client", "macs"} for client in each.clients)
        assert each.traffic.up == each.traffic.down > 0
        assert record_from_json(json.loads(json.dumps(each.to_json()))) == each


def test_a_new_field_of_records_is_withheld_until_it_is_known_to_tell_nothing() -> None:
    """Whoever adds a field of a record decides here whether it follows from the plan and the supernet alone."""
    public = {
        *("round", "lr", "beta", "clients", "failures", "traffic", "bytes_whole", "trained", "epsilon", "delta"),
        # Of the server's own validation images, after the round.
        *("evaluation_seconds", "probes", "evaluation_failures", "evaluation_traffic", "tested"),
        *("merged", "done", "owed"),
    }
    withheld = {"train_loss", "seconds", "sgd_seconds", "overhead_share", "compute", "clipped"}
    assert {field.name for field in dataclasses.fields(RoundRecord)} == public | withheld
    assert set(public_record.__code__.co_names) >= {"RoundRecord"}


def test_a_lost_round_keeps_reasons_to_itself_and_says_so(tmp_path: Path) -> None:
    def failing(update: Update) -> Update | Failure:
        return Failure(update.task, "error", _REASON)

    config = short_config(privacy=PrivacyConfig(clip=0.5, noise=0.3))
    run, _ = spoiled_run(tmp_path, failing, config, noise_key=7)
    with pytest.raises(UserError) as caught:
        train_run(run)
    assert "too few clients of round 1 gave a usable answer; their reasons may tell of their images" in str(
        caught.value
    )
    assert "7777777" not in str(caught.value)
    (lost,) = recorder(run).lost
    assert lost.failures == {}
    assert all(client.keys() == {"client", "macs"} for client in lost.clients)

    def away(update: Update) -> Update | Failure:
        return Failure(update.task, "offline", "it is not connected")

    run, _ = spoiled_run(tmp_path / "away", away, config, noise_key=7)
    with pytest.raises(UserError, match=r"all 3 clients of round 1 failed \(client \d: it is not connected\)"):
        train_run(run)
    assert recorder(run).lost[0].failures == {"offline": 3}


@pytest.mark.parametrize("statistics", ["withheld", "exact"])
def test_a_merge_that_noise_spoils_is_refused_without_a_word_of_clients(statistics: Any, tmp_path: Path) -> None:
    privacy = PrivacyConfig(clip=1e30, noise=1e10, statistics=statistics)
    with pytest.raises(UserError, match=r"round 1 is refused: merged, .* has NaN or infinity") as caught:
        train_run(simulated_run(tmp_path, short_config(privacy=privacy), noise_key=7))
    told = re.search(r"client \d|moved its weights|median|weighs", str(caught.value))
    assert (told is None) == (statistics == "withheld")
    assert statistics == "exact" or "--privacy.clip" in str(caught.value)


@pytest.mark.slow
def test_the_digests_that_go_with_a_run_confirm_no_guess_of_its_images(tmp_path: Path) -> None:
    """They are in provenance and signatures, beside every subnet and checkpoint."""
    found: dict[str, list[str]] = {}
    for name, statistics in (("one", "withheld"), ("two", "withheld"), ("three", "exact"), ("four", "exact")):
        choice: Any = statistics
        end = run_session(federation_of(tmp_path / name, client_images(0), choice), None, ends_process=False)
        digests = json.loads((end.folder / PROVENANCE).read_text())["digests"]
        found.setdefault(statistics, []).append(digests["data"])
    assert [len(set(each)) for each in found.values()] == [2, 1]


def test_validation_images_that_are_clients_are_refused(tmp_path: Path) -> None:
    config = micro_config(tmp_path, partition=PartitionConfig("natural"), privacy=PrivacyConfig(clip=1.0, noise=1.0))
    with pytest.raises(UserError, match=r"would be clients' images.*--privacy.statistics exact"):
        new_run(config, SILENT)


def test_compute_which_tells_how_many_images_clients_have_is_refused(tmp_path: Path) -> None:
    config = micro_config(tmp_path, compute="100M", privacy=PrivacyConfig(clip=1.0, noise=1.0))
    with pytest.raises(UserError, match=r"compute is 100M with privacy.noise.*give --rounds, or --privacy.statistics"):
        new_run(config, SILENT)
    run = new_run(dataclasses.replace(config, compute=None), SILENT).folder
    with pytest.raises(UserError, match=r"compute is 100M with privacy\.noise"):
        resumed_run(run, dataclasses.replace(read_run_config(run), compute="100M"), SILENT)


def test_what_a_run_said_of_clients_is_not_changed_on_resume(tmp_path: Path) -> None:
    run = new_run(micro_config(tmp_path, privacy=PrivacyConfig(clip=1.0, noise=1.0)), SILENT).folder
    exact = dataclasses.replace(read_run_config(run), privacy=PrivacyConfig(clip=1.0, noise=1.0, statistics="exact"))
    with pytest.raises(UserError, match=r"privacy\.statistics is exact, but .* was trained with withheld"):
        resumed_run(run, exact, SILENT)


# Runs from before there was a choice.


def _as_before(mapping: dict[str, Any]) -> dict[str, Any]:
    """Return a private configuration as it was written before statistics could be withheld."""
    privacy = {name: value for name, value in mapping["privacy"].items() if name != "statistics"}
    return {**mapping, "privacy": privacy}


@pytest.mark.parametrize(("noise", "statistics"), [(1.0, "exact"), (0.0, "withheld")])
def test_older_configurations_keep_what_they_did(noise: float, statistics: str) -> None:
    config = RunConfig(privacy=PrivacyConfig(clip=1.0, noise=noise))
    written = _as_before(config_to_mapping(config))
    now = with_former_statistics(config, written)
    assert now.privacy.statistics == statistics
    assert changed_fields(written, config_to_mapping(now)) == []
    assert with_former_statistics(config, config_to_mapping(config)) == config
    # Older still: before there was privacy.
    assert with_former_statistics(config, {}) == config


def test_an_older_private_run_goes_on_and_is_searched_as_it_was(tmp_path: Path) -> None:
    from fedpareto.search.extraction.opened_run import Extraction, opened_run

    prepared = new_run(micro_config(tmp_path, privacy=PrivacyConfig(clip=1.0, noise=1.0, statistics="exact")), SILENT)
    run, checkpoint = prepared.folder, newest_checkpoint(prepared.folder)
    mapping = _as_before(read_yaml_mapping(run / CONFIG))
    write_text(run / CONFIG, json.dumps(mapping))
    record(run, [CONFIG])
    body = json.loads((checkpoint / "state.json").read_text())
    write_text(checkpoint / "state.json", json.dumps({**body, "config": _as_before(body["config"])}))
    record(checkpoint, ["state.json"])
    config = read_run_config(run)
    assert config.privacy.statistics == "exact"
    resumed = resumed_run(run, dataclasses.replace(config, privacy=PrivacyConfig(clip=1.0, noise=1.0)), SILENT)
    assert resumed.config.privacy.statistics == "exact"
    opened = opened_run(run, prepared.space, "newest", None)
    report = opened.extract(prepared.cache.entries[0], Extraction(), {}).info.report
    assert report["calibration"]["method"] == "pooled"
    assert not report["privacy"]["covered"]
    assert read_split(run).normalisation == prepared.federation.split.normalisation
    assert MICRO.norm == "batch"
