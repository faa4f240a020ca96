"""Rounds over a link in memory, for tests of the engine."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.evaluation import EvaluationConfig
from fedpareto.training.config.flower import FlowerConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.flower.engine import FlowerEngine
from fedpareto.training.evaluation.evaluator import Evaluation
from fedpareto.training.messages import (
    Task,
)
from fedpareto.training.rounds.loop import train
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import RunState
from fedpareto.training.trackers.records import RoundRecord
from helpers.runs.flower import (
    LocalLink,
    Spoil,
    engine_of,
    only,
    prepared_run,
)
from helpers.runs.flower_spoils import ODD
from helpers.runs.simulation import Recorder, micro_task, smallest


def flower(**changes: Any) -> FlowerConfig:
    return FlowerConfig(**{"insecure": True, "patience": 60.0, "deadline": 60.0, "retries": 0, **changes})


def impatient(run: Run) -> FlowerEngine:
    """Return a run's engine, which from now on waits for nobody."""
    engine = engine_of(run)
    engine._config = dataclasses.replace(engine._config, patience=0.05)
    return engine


def by_client(record: RoundRecord) -> dict[int, Mapping[str, Any]]:
    return {client["client"]: client for client in record.clients}


def rarely(config: RunConfig) -> EvaluationConfig:
    return dataclasses.replace(config.evaluation, every=100)


def a_task(engine: FlowerEngine) -> Task:
    engine.available()
    return micro_task(smallest())


def ready(config: RunConfig, link: LocalLink) -> Run:
    run = prepared_run(config, link)[0]
    engine_of(run).available()
    return run


class FirstRounds:
    """First rounds of one and the same run, each with its own spoil."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.link = LocalLink(folder / "link", 4)
        self._run, self._state, self._models = prepared_run(config, self.link)

    def train(self, folder: Path, spoil: Spoil, client: int = ODD) -> tuple[Run, RunState, Tensors]:
        # Whom the last round has lost speaks first.
        while len(engine_of(self._run).available()) < 4:
            continue
        self.link.spoil = only(client, "train", spoil)
        run = dataclasses.replace(self._run, folder=folder, tracker=Recorder(), evaluator=_Blind())
        tensors = {name: tensor.clone() for name, tensor in self._models.supernet.items()}
        return run, train(run, self._state, Models(tensors)), tensors


class _Blind:
    """Measures nothing."""

    def probe(self, tensors: object, entries: object) -> Evaluation:
        del tensors, entries
        return Evaluation()
