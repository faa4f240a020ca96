"""A subnet of a connected run: calibrated, tuned and measured by the clients that can run it."""

from pathlib import Path

import pytest
from helpers.runs.flower import LocalLink, flower_config, hurry, trained

from fedpareto.search.extraction.opened_run import Extraction, OpenedRun, opened_run
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.runs.folder import read_census, read_run_cache, read_space

#: Odd clients run the cache's smaller networks only.
_CLIENTS = ClientsConfig(count=4, per_round=4, max_macs=("200K", "60K"))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("connected")
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        config = flower_config(folder, clients=_CLIENTS)
        trained(config, LocalLink(folder / "link", 4))
    return Path(str(config.output))


def _open(run_folder: Path, link: LocalLink) -> OpenedRun:
    return opened_run(run_folder, read_space(run_folder), "newest", link, test=False)


def test_clients_that_cannot_run_a_subnet_are_not_sent_it(run_folder: Path, tmp_path: Path) -> None:
    link = LocalLink(tmp_path / "link", 4)
    run = _open(run_folder, link)
    largest = read_run_cache(run_folder, run.space).entries[-1]
    assert largest.macs > 60_000
    subnet = run.extract(largest, Extraction(finetune_epochs=1), {"macs": largest.macs})
    for kind in ("calibrate", "train", "evaluate"):
        assert {message.client for message in link.asked(kind)} == {0, 2}, kind
    report = subnet.info.report
    assert report["calibration"]["method"] == "federated"
    assert report["calibration"]["clients"] == 2
    assert report["finetune"]["clients"] == 2
    assert report["validation_accuracy"] == report["finetune"]["after"]["validation_accuracy"]
    # Two accuracies over the held-out images of two clients, counted in whole images.
    held_out = sum(read_census(run_folder).validation[client] for client in (0, 2))
    for accuracy in (report["validation_accuracy"], report["finetune"]["before"]["validation_accuracy"]):
        assert accuracy * held_out == pytest.approx(round(accuracy * held_out))
    assert "test_accuracy" not in report
    assert report["validation_interval"]["images"] == held_out
    # Each client tells how many of its own it had right, and nothing of their classes.
    spread = report["validation_clients"]
    assert spread["clients"] == 2
    assert spread["worst_decile"] <= report["validation_accuracy"] + 1e-9
    assert "validation_measures" not in report


def test_a_small_subnet_is_measured_by_all(run_folder: Path, tmp_path: Path) -> None:
    link = LocalLink(tmp_path / "link", 4)
    run = _open(run_folder, link)
    smallest = read_run_cache(run_folder, run.space).entries[0]
    report = run.extract(smallest, Extraction(), {}).info.report
    assert report["calibration"]["clients"] == 4
    assert {message.client for message in link.asked("evaluate")} == {0, 1, 2, 3}


def test_without_a_client_that_can_run_it_there_is_no_subnet(run_folder: Path, tmp_path: Path) -> None:
    link = LocalLink(tmp_path / "link", 4)
    run = _open(run_folder, link)
    largest = read_run_cache(run_folder, run.space).entries[-1]
    for node in ("node-0", "node-2"):
        del link.online[node]
    with pytest.raises(UserError, match="no client of the federation can run this subnet; search one within"):
        run.extract(largest, Extraction(), {})
