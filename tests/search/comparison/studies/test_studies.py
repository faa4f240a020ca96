"""The studies that come with the project: each is one that could run, with spaces and caches that fit each other."""

from pathlib import Path

import pytest
from helpers.repository import ROOT

from fedpareto.cache.cache_file import read_cache
from fedpareto.search.comparison.studies.study import read_study
from fedpareto.search.recipes.reading import read_ablation
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.capabilities import capabilities
from fedpareto.training.methods.curriculum import runnable_entries

_SPACES = ("mobilenet-small.yaml", "resnet-feast.yaml", "resnet-published.yaml")
_STUDIES = sorted(path.name for path in (ROOT / "studies").glob("*.yaml") if path.name not in _SPACES)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", _STUDIES)
def test_every_study_reads_all_that_it_says_and_has_a_cache_that_fits(name: str) -> None:
    study = read_study(Path("studies") / name)
    assert study.name == Path(name).stem
    config = study.trials[0].config
    space = load_space(config.space)
    if config.cache is not None:
        entries = read_cache(Path(config.cache), space).entries
        runnable_entries(entries, capabilities(config.clients, space, 0), config.client.batch)
        assert entries[0].macs <= study.budgets[0]


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "studies" / "levers").glob("*.yaml")))
def test_every_file_of_levers_can_be_tried(name: str) -> None:
    ablation = read_ablation(Path("studies/levers") / name)
    assert ablation.name == Path(name).stem
    assert set(ablation.settings) == {"equal", "unequal"}
    assert (len(ablation.seeds), ablation.together) == (3, name != "without.yaml")


def test_deepfednas_is_trained_as_published() -> None:
    trial = next(trial for trial in read_study(Path("studies/cifar100-deepfednas.yaml")).trials)
    client, config = trial.config.client, trial.config
    assert (client.momentum, client.lr, client.lr_schedule, client.decay_all) == (0, 0.1, "constant", True)
    assert (client.epochs, client.batch, client.clip, client.weight_decay) == (5, 64, 10, 5e-4)
    assert (config.server.largest_weight, config.deepfednas.draw) == (0.9, "uniform")
    assert config.clients.per_round == 0.4 * config.clients.count
    assert load_space(config.space).norm == "none"
    entries = read_cache(Path(str(config.cache)), load_space(config.space)).entries
    assert len(entries) == 60
    assert 458e6 <= entries[0].macs <= 470e6
    assert 3.4033e9 <= entries[-1].macs <= 3.404e9


def test_feast_has_nine_blocks_a_stage_and_one_ratio_each() -> None:
    trial = next(trial for trial in read_study(Path("studies/cifar100-unequal.yaml")).trials)
    space, clients = load_space(trial.config.space), trial.config.clients
    assert (space.max_depth, space.expands_per, space.norm) == (9, "stage", "batch")
    assert (clients.macs_distribution, clients.data, clients.gamma) == ("zipf-ranks", "proportional", 1.0)
    entries = read_cache(Path(str(trial.config.cache)), space).entries
    assert len(entries) == 56
    assert max(len(stage.blocks) for entry in entries for stage in entry.architecture.stages) == 9
    for entry in entries:
        assert all(len({block.expand for block in stage.blocks}) == 1 for stage in entry.architecture.stages)
