"""Runs of four clients over a link in memory."""

import dataclasses
from pathlib import Path

import pytest
from helpers.runs.flower import (
    RAISED,
    Error,
    LocalLink,
    flower_config,
    honest,
    hurry,
)
from helpers.runs.flower_rounds import FirstRounds

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.run import RunConfig


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    # Rounds with the largest and the smallest network.
    return dataclasses.replace(flower_config(tmp_path_factory.mktemp("base")), method="deepfednas")


@pytest.fixture
def config(base: RunConfig, tmp_path: Path) -> RunConfig:
    return dataclasses.replace(base, output=str(tmp_path / "run"))


@pytest.fixture
def link(tmp_path: Path) -> LocalLink:
    return LocalLink(tmp_path / "link", 4)


@pytest.fixture(scope="module")
def rounds(base: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> FirstRounds:
    folder = tmp_path_factory.mktemp("rounds")
    return FirstRounds(dataclasses.replace(base, output=str(folder / "run")), folder)


@pytest.fixture(scope="module")
def without(rounds: FirstRounds, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """The supernet after a round in which the odd client's code raised."""
    return rounds.train(tmp_path_factory.mktemp("without"), lambda message, answer: Error(RAISED))[2]


@pytest.fixture(scope="module")
def everyone(rounds: FirstRounds, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """The supernet after a round in which all clients trained."""
    return rounds.train(tmp_path_factory.mktemp("everyone"), honest)[2]
