"""Private runs over Flower: clients are asked for nothing but clipped updates."""

import dataclasses
from pathlib import Path

from helpers.runs.flower import LocalLink, trained
from helpers.runs.simulation import recorder

from fedpareto.cache.cache_file import read_cache_of_any_classes
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.config.evaluation import EvaluationConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.images import fixed_normalisation
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.federation import connect
from fedpareto.training.runs.folder import CACHE, read_census, read_space
from fedpareto.training.session import middle_macs

_EVERY_ROUND = EvaluationConfig(every=1, probes=2, calibration_images=64, batch_size=64)
_PRIVATE = PrivacyConfig(clip=1.0, noise=1.0)


def _described(link: LocalLink) -> list[bool]:
    """Return, for every description a client gave, whether it counted its pixels."""
    return ["pixels" in wire.decode(link._answer(message)[0]) for message in link.asked("describe")]


def test_nothing_exact_leaves_a_client(config: RunConfig, link: LocalLink) -> None:
    run, state, _ = trained(dataclasses.replace(config, privacy=_PRIVATE, evaluation=_EVERY_ROUND), link)
    assert {message.asked for message in link.sent} == {"describe", "train"}
    assert _described(link) == [False] * 4
    assert read_census(run.folder).normalisation == fixed_normalisation(3)
    for message in link.asked("train"):
        assert message.fields["normalisation"] == {"mean": [0.5] * 3, "std": [0.25] * 3}
    (record,) = recorder(run).records
    assert record.probes == ()
    assert record.train_loss is None
    assert state.best is None
    # Sizes of replies vary with what clients say in them.
    sent = sum(len(message.blob) for message in link.asked("train"))
    assert 0.9 * sent < record.traffic.down < sent
    assert state.traffic == record.traffic


def test_with_exact_statistics_clients_are_asked_as_in_any_run(config: RunConfig, link: LocalLink) -> None:
    exact = dataclasses.replace(_PRIVATE, statistics="exact")
    run, _, _ = trained(dataclasses.replace(config, privacy=exact, evaluation=_EVERY_ROUND), link)
    assert {message.asked for message in link.sent} == {"describe", "train", "calibrate", "evaluate"}
    assert _described(link) == [True] * 4
    (record,) = recorder(run).records
    assert len(record.probes) == 2
    assert record.train_loss is not None


def test_without_probes_a_budget_is_suggested_that_the_space_can_use(config: RunConfig, link: LocalLink) -> None:
    run, _, _ = trained(dataclasses.replace(config, privacy=_PRIVATE), link)
    entries = read_cache_of_any_classes(run.folder / CACHE, read_space(run.folder)).entries
    assert entries[0].macs < middle_macs(run.folder) <= entries[-1].macs


def test_the_start_says_how_to_get_probes(config: RunConfig, link: LocalLink, tmp_path: Path) -> None:
    run, _, _ = trained(dataclasses.replace(config, privacy=_PRIVATE), link)
    told: list[str] = []
    space = read_space(run.folder)
    connect(LocalLink(tmp_path / "again", 4), run.config, space, ProgressListener(remark=told.append))
    assert [words for words in told if "--privacy.statistics exact" in words and "no probe is measured" in words]
    assert [words for words in told if "no subnet of" in words and "norm: group" in words]
    told.clear()
    plain = dataclasses.replace(run.config, privacy=PrivacyConfig())
    connect(LocalLink(tmp_path / "plain", 4), plain, space, ProgressListener(remark=told.append))
    assert told == []
