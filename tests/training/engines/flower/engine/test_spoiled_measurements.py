"""Calibration and evaluation by clients: whatever one says, it fails alone."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers.runs.federation import MICRO
from helpers.runs.flower import (
    RAISED,
    Error,
    Honest,
    LocalLink,
    Message,
    Reaction,
    Spoil,
    edited,
    engine_of,
    honest,
    only,
    prepared_run,
    trained,
)
from helpers.runs.flower_rounds import ready
from helpers.runs.flower_spoils import ODD, of_first_job, one_more
from helpers.runs.simulation import largest, random_tensors, recorder, same_bytes, smallest
from torch import Tensor

from fedpareto.supernet.networks.weights import Tensors, views
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.run_images import shares, used_images
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.engine import FlowerEngine, statistics_shapes
from fedpareto.training.engines.flower.evaluation import FederatedEvaluator
from fedpareto.training.evaluation.calibration import blank_network
from fedpareto.training.messages import (
    CalibrationTask,
    Correct,
    EvaluationTask,
    Failure,
    Statistics,
)
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint


def _calibrations() -> list[CalibrationTask]:
    """Two tasks of every client, on the smallest and the largest network."""
    supernet = random_tensors()
    return [
        CalibrationTask(client, architecture, views(MICRO, supernet, architecture), 2, 16, seed=7)
        for client in range(4)
        for architecture in (smallest(), largest())
    ]


def _evaluations() -> list[EvaluationTask]:
    network = blank_network(MICRO, random_tensors(), smallest())
    return [EvaluationTask(client, smallest(), network.state_dict(), 64) for client in range(4)]


class _Measured(NamedTuple):
    """An engine, and what its four clients answer when none of them is odd."""

    engine: FlowerEngine
    link: LocalLink
    statistics: Sequence[Statistics | Failure]
    counts: Sequence[Correct | Failure]


@pytest.fixture(scope="module")
def measured(base: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> _Measured:
    folder = tmp_path_factory.mktemp("measured")
    link = LocalLink(folder / "link", 4)
    engine = engine_of(ready(dataclasses.replace(base, output=str(folder / "run")), link))
    return _Measured(engine, link, list(engine.calibrate(_calibrations())), list(engine.evaluate(_evaluations())))


def _statistic(kind: str, change: Callable[[Tensor], Tensor | None]) -> Spoil:
    """Return a spoil that changes one statistic of the first job."""

    def edit(tensors: Tensors) -> None:
        name = next(name for name in sorted(tensors) if name.startswith("0/") and name.endswith(kind))
        changed = change(tensors.pop(name))
        if changed is not None:
            tensors[name] = changed

    return edited(tensors=edit)


def _swap(tensors: Tensors) -> None:
    own = dict(tensors)
    tensors.clear()
    for name, tensor in own.items():
        tensors[("1" if name[0] == "0" else "0") + name[1:]] = tensor


_BAD_STATISTICS: dict[str, tuple[Spoil, str]] = {
    "another network": (edited(tensors=_swap), "shape"),
    "missing": (_statistic("running_mean", lambda t: None), "shape"),
    "another shape": (_statistic("running_mean", lambda t: t[:1]), "shape"),
    "more": (one_more("0/head.norm.running_max"), "shape"),
    "none": (edited(tensors=lambda tensors: tensors.clear()), "shape"),
    "negative variance": (_statistic("running_var", lambda t: -t - 1), "non-finite"),
    "NaN": (_statistic("running_mean", lambda t: t * float("nan")), "non-finite"),
    "infinity": (_statistic("running_var", lambda t: t + float("inf")), "non-finite"),
    "infinite in fp32": (_statistic("running_var", lambda t: t + 1e300), "non-finite"),
    "infinite in fp32 with the others": (_statistic("squared_mean", lambda t: t + 1e300), "non-finite"),
    "negative squared mean": (_statistic("squared_mean", lambda t: -t - 1), "non-finite"),
    "squared mean below the mean's square": (_statistic("squared_mean", lambda t: t * 0.5 - 1e-30), "non-finite"),
    "mean beyond its square": (_statistic("running_mean", lambda t: t + 1e30), "non-finite"),
    "without a squared mean": (_statistic("squared_mean", lambda t: None), "shape"),
    "fewer images than batches": (of_first_job(images=1), "malformed"),
    "batches of no images": (of_first_job(images=0), "malformed"),
    "smaller batches than were asked for": (of_first_job(images=31), "malformed"),
    "one batch of two's images": (of_first_job(batches=1), "malformed"),
    "another client's": (edited(lambda fields: fields.update(client=3)), "malformed"),
    "another protocol's": (edited(lambda fields: fields.update(protocol=wire.PROTOCOL + 1)), "version"),
    "fp32": (_statistic("running_mean", lambda t: t.float()), "dtype"),
    "integers": (_statistic("running_mean", lambda t: t.long()), "dtype"),
    "float8": (_statistic("running_mean", lambda t: t.to(torch.float8_e4m3fn)), "dtype"),
    "too many batches": (of_first_job(batches=3), "malformed"),
    "negative batches": (of_first_job(batches=-1), "malformed"),
    "no batches but sums": (of_first_job(batches=0, images=0), "shape"),
    "batches as text": (of_first_job(batches="2"), "malformed"),
    "too many images": (of_first_job(images=33), "malformed"),
    "negative images": (of_first_job(images=-1), "malformed"),
    "another architecture": (of_first_job(architecture=largest().to_json()), "malformed"),
}


@pytest.mark.parametrize(("spoil", "kind"), _BAD_STATISTICS.values(), ids=_BAD_STATISTICS)
def test_statistics_that_cannot_be_fail_alone(measured: _Measured, spoil: Spoil, kind: str) -> None:
    expected = measured.statistics
    measured.link.spoil = only(ODD, "calibrate", spoil)
    answers = list(measured.engine.calibrate(_calibrations()))
    first = 2 * ODD
    odd = answers[first]
    assert isinstance(odd, Failure)
    assert (odd.kind, odd.task.client) == (kind, ODD)
    for index, (answer, wanted) in enumerate(zip(answers, expected, strict=True)):
        if index == first + 1 and isinstance(answer, Failure):
            # A spoil may reach the client's other job too.
            assert kind in ("shape", answer.kind)
        elif index != first:
            assert isinstance(answer, Statistics)
            assert isinstance(wanted, Statistics)
            assert (answer.batches, answer.images) == (wanted.batches, wanted.images) == (2, 32)
            assert same_bytes(dict(answer.sums), dict(wanted.sums))


def test_a_clients_jobs_travel_as_one_message(config: RunConfig, link: LocalLink) -> None:
    engine = engine_of(ready(config, link))
    answers = list(engine.calibrate(_calibrations()))
    assert [message.client for message in link.asked("calibrate")] == [0, 1, 2, 3]
    for message in link.asked("calibrate"):
        assert len(message.fields["jobs"]) == 2
    for task, answer in zip(_calibrations(), answers, strict=True):
        assert isinstance(answer, Statistics)
        assert {name: tuple(t.shape) for name, t in answer.sums.items()} == statistics_shapes(MICRO, task.architecture)
        assert {tensor.dtype for tensor in answer.sums.values()} == {torch.float64}


def test_statistics_outlive_the_file_they_came_in(config: RunConfig, link: LocalLink) -> None:
    engine = engine_of(ready(config, link))
    answers = list(engine.calibrate(_calibrations()))
    assert link.files() == []
    assert all(isinstance(a, Statistics) and all(t.isfinite().all() for t in a.sums.values()) for a in answers)


def test_every_norm_has_a_mean_a_variance_and_a_squared_mean() -> None:
    shapes = statistics_shapes(MICRO, largest())
    norms = [name for name in tensor_shapes(MICRO, largest()) if name.endswith("norm.weight")]
    assert len(shapes) == 3 * len(norms)
    for norm in ("group", "none"):
        assert statistics_shapes(dataclasses.replace(MICRO, norm=norm), largest()) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"correct": 10**6}, {"correct": -1}, {"correct": True}, {"correct": "3"}, {"correct": 1.0}, {"correct": None},
        {"images": 10**6, "correct": 10**6}, {"images": -1}, {"images": True}, {"images": 0},
    ],
    ids=str,
)  # fmt: skip
def test_counts_that_cannot_be_fail_alone(measured: _Measured, config: RunConfig, changes: dict[str, Any]) -> None:
    expected = measured.counts
    measured.link.spoil = only(ODD, "evaluate", of_first_job(**changes))
    answers = list(measured.engine.evaluate(_evaluations()))
    odd = answers[ODD]
    assert isinstance(odd, Failure)
    assert odd.kind == "malformed"
    for client in (0, 1, 3):
        answer, wanted = answers[client], expected[client]
        assert isinstance(answer, Correct)
        assert isinstance(wanted, Correct)
        assert (answer.correct, answer.images) == (wanted.correct, wanted.images)
        assert 0 < answer.images == len(_held_out(config, client))


def _held_out(config: RunConfig, client: int) -> list[int]:
    split = shares(config, used_images(config))
    return list(split.validation)[client :: config.clients.count]


@pytest.mark.slow
def test_a_client_that_fails_in_an_evaluation_has_no_part_in_it(config: RunConfig, tmp_path: Path) -> None:
    def probes(number: int, spoil: Spoil, *kinds: str) -> list[float]:
        link = LocalLink(tmp_path / f"link-{number}", 4)
        link.spoil = spoil
        run, state, _ = trained(dataclasses.replace(config, output=f"{config.output}-{number}"), link)
        (record,) = recorder(run).records
        assert record.failures == {}
        # Of all jobs in a message one failure counts, and the message's bytes once.
        assert [(failure["client"], failure["failure"]) for failure in record.evaluation_failures] == [
            (ODD, kind) for kind in kinds
        ]
        assert state.failures == dict.fromkeys(kinds, 1)
        others = [*link.asked("calibrate"), *link.asked("evaluate")]
        assert record.evaluation_traffic.down == sum(message.size for message in others)
        return [probe.accuracy for probe in record.probes]

    error: Spoil = lambda message, answer: Error(RAISED)  # noqa: E731
    failed = probes(0, only(ODD, "evaluate", error), "error")
    every = edited(lambda fields: [job.update(correct=10**6) for job in fields["jobs"]])
    assert probes(1, only(ODD, "evaluate", every), "malformed") == failed != probes(2, honest)
    assert len(failed) == 2
    unmeasured = probes(3, only(ODD, "calibrate", error), "error")
    negative = edited(tensors=lambda ts: ts.update({n: -t - 1 for n, t in ts.items() if n.endswith("running_var")}))
    assert probes(4, only(ODD, "calibrate", negative), "non-finite") == unmeasured
    vast = edited(tensors=lambda ts: ts.update({n: t * 1e9 for n, t in ts.items() if n.endswith("running_var")}))
    assert probes(5, only(ODD, "calibrate", vast), "outlier") == unmeasured


def test_probes_that_nobody_measures_are_left_out_and_the_run_goes_on(config: RunConfig, link: LocalLink) -> None:
    link.spoil = lambda message, answer: Error(RAISED) if message.asked == "evaluate" else answer()
    run, state, _ = trained(config, link)
    assert (state.round, recorder(run).records[0].probes) == (1, ())


def test_clients_that_leave_before_an_evaluation_cost_no_round(config: RunConfig, link: LocalLink) -> None:
    def spoil(message: Message, answer: Callable[[], Honest]) -> Reaction:
        reaction = answer()
        if message.asked == "train" and message.client == link.asked("train")[-1].client:
            link.online.clear()
        return reaction

    link.spoil = spoil
    run, state, models = prepared_run(config, link)
    evaluator = run.evaluator
    assert isinstance(evaluator, FederatedEvaluator)
    evaluator.engine._config = dataclasses.replace(evaluator.engine._config, patience=0.05)
    state = train(run, state, models)
    assert (state.round, recorder(run).records[0].probes) == (1, ())
    assert same_bytes(
        load_checkpoint(newest_checkpoint(Path(str(config.output))), MICRO).models.supernet, models.supernet
    )
