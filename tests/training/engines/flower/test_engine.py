"""The Flower engine: a round stays what it is, whatever its clients say or fail to say."""

import dataclasses
import functools
import itertools
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs.federation import MICRO
from helpers.runs.flower import (
    EXPIRED,
    NODE_GONE,
    PROCESS_GONE,
    RAISED,
    Error,
    Honest,
    LocalLink,
    Message,
    Reaction,
    Spoil,
    edited,
    engine_of,
    flower_config,
    honest,
    hurry,
    lost,
    only,
    prepared_run,
    raw_blob,
    trained,
)
from helpers.runs.simulation import Recorder, largest, micro_task, random_tensors, recorder, same_bytes, smallest
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.supernet.weights import Tensors, views
from fedpareto.training.clients.trainer import LocalTrainer
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.flower import FlowerConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.run import ClientConfig, EvaluationConfig, RunConfig, ServerConfig
from fedpareto.training.data.run_images import shares, used_images
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.engine import FlowerEngine, restored, statistics_shapes
from fedpareto.training.engines.flower.evaluation import FederatedEvaluator
from fedpareto.training.engines.flower.relay_socket import LineLost
from fedpareto.training.engines.protocol import EngineError
from fedpareto.training.evaluation.calibration import blank_network
from fedpareto.training.evaluation.evaluator import Evaluation
from fedpareto.training.messages import (
    CalibrationTask,
    Correct,
    EvaluationTask,
    Failure,
    Statistics,
    Task,
    Update,
    check_update,
)
from fedpareto.training.rounds.loop import train
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import RunState
from fedpareto.training.setup import assemble, new_run
from fedpareto.training.trackers.records import RoundRecord

#: The client whose answers are spoiled.
_ODD = 2

_BIAS = "0/head.classifier.linear.bias"
_WEIGHT = "0/head.classifier.linear.weight"


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


class _Rounds:
    """First rounds of one and the same run, each with its own spoil."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.link = LocalLink(folder / "link", 4)
        self._run, self._state, self._models = prepared_run(config, self.link)

    def train(self, folder: Path, spoil: Spoil, client: int = _ODD) -> tuple[Run, RunState, Tensors]:
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


@pytest.fixture(scope="module")
def rounds(base: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> _Rounds:
    folder = tmp_path_factory.mktemp("rounds")
    return _Rounds(dataclasses.replace(base, output=str(folder / "run")), folder)


@pytest.fixture(scope="module")
def without(rounds: _Rounds, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """The supernet after a round in which the odd client's code raised."""
    return rounds.train(tmp_path_factory.mktemp("without"), lambda message, answer: Error(RAISED))[2]


@pytest.fixture(scope="module")
def everyone(rounds: _Rounds, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """The supernet after a round in which all clients trained."""
    return rounds.train(tmp_path_factory.mktemp("everyone"), honest)[2]


def _flower(**changes: Any) -> FlowerConfig:
    return FlowerConfig(**{"insecure": True, "patience": 60.0, "deadline": 60.0, "retries": 0, **changes})


def _impatient(run: Run) -> FlowerEngine:
    """Return a run's engine, which from now on waits for nobody."""
    engine = engine_of(run)
    engine._config = dataclasses.replace(engine._config, patience=0.05)
    return engine


def _told(record: RoundRecord) -> dict[int, Mapping[str, Any]]:
    return {client["client"]: client for client in record.clients}


# A round stays what it is.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "server": ServerConfig(momentum=0.5, weight_by_examples=True),
            "seed": 5,
            "partition": PartitionConfig(alpha=1.0),
            "data": DataConfig("digits", validation=0.5),
        },
        # The last round is as small as what is left.
        {"rounds": 1, "compute": "120M"},
    ],
    ids=["plain", "other", "compute"],
)
def test_a_run_ends_with_the_bytes_of_the_simulated_one(
    config: RunConfig, link: LocalLink, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(
        config, clients=ClientsConfig(count=8, per_round=3), evaluation=_rarely(config), **{"rounds": 3, **changes}
    )
    for client in range(4, 8):
        link.online[f"node-{client}"] = {"partition-id": client, "device": "cpu"}
    run, state, tensors = trained(config, link)
    alone = dataclasses.replace(config, engine="in-process", output=str(tmp_path / "alone"))
    simulated, state_alone, tensors_alone = trained(alone, None)
    assert same_bytes(tensors, tensors_alone)
    assert state.round == (3 if config.compute is None else state_alone.round)
    assert (state.counts, state.trained) == (state_alone.counts, state_alone.trained)
    assert state.compute == state_alone.compute
    if config.compute is not None:
        assert any(job["steps"] for message in link.asked("train") for job in message.fields["jobs"])
        assert abs(state.compute - 120_000_000) < 1_200_000
    for record, other in zip(recorder(run).records, recorder(simulated).records, strict=True):
        assert record.train_loss == other.train_loss
        assert [(c["client"], c["macs"], c["examples"]) for c in record.clients] == [
            (c["client"], c["macs"], c["examples"]) for c in other.clients
        ]
    assert link.files() == []


def _rarely(config: RunConfig) -> EvaluationConfig:
    return dataclasses.replace(config.evaluation, every=100)


def test_the_order_in_which_answers_come_in_changes_no_byte(
    config: RunConfig, link: LocalLink, everyone: Tensors
) -> None:
    link.pick = lambda waiting: waiting[::-1][:1]
    assert same_bytes(trained(config, link)[2], everyone)


def test_bytes_in_the_records_are_those_of_the_messages(config: RunConfig, link: LocalLink) -> None:
    run, state, _ = trained(config, link)
    (record,) = recorder(run).records
    messages = link.asked("train")
    assert record.traffic.down == sum(message.size for message in messages)
    assert record.traffic.up == sum(link.bytes_up[message.name] for message in messages)
    others = [*link.asked("calibrate"), *link.asked("evaluate")]
    assert len(others) == 2 * config.clients.count
    assert record.evaluation_traffic.down == sum(message.size for message in others)
    assert record.evaluation_traffic.up == sum(link.bytes_up[message.name] for message in others)
    assert state.traffic.down == record.traffic.down + record.evaluation_traffic.down
    assert state.traffic.up == record.traffic.up + record.evaluation_traffic.up
    for message in messages:
        told = _told(record)[message.client]
        assert (told["bytes_down"], told["bytes_up"]) == (message.size, link.bytes_up[message.name])


def test_a_message_names_nothing_of_the_server(config: RunConfig, link: LocalLink) -> None:
    trained(dataclasses.replace(config, data=dataclasses.replace(config.data, root="/secret/images")), link)
    for message in link.sent:
        assert b"secret" not in message.header
        assert str(config.output).encode() not in message.header


# bf16 on the wire.


def test_bf16_halves_the_bytes_and_stays_close(config: RunConfig, link: LocalLink) -> None:
    # Steps that do not make chaos of a rounding.
    config = dataclasses.replace(config, client=dataclasses.replace(config.client, lr=1e-3))
    whole = trained(dataclasses.replace(config, output=f"{config.output}-0"), LocalLink(link.folder / "a", 4))[2]
    start = prepared_run(dataclasses.replace(config, output=f"{config.output}-1"), LocalLink(link.folder / "b", 4))[2]
    run, _, tensors = trained(dataclasses.replace(config, flower=_flower(wire_dtype="bf16")), link)
    (record,) = recorder(run).records
    for message in link.asked("train"):
        sent = wire.parse_blob(message.blob)
        assert {tensor.dtype for tensor in sent.values()} == {torch.bfloat16}
    values = sum(tensor.numel() for m in link.asked("train") for tensor in wire.parse_blob(m.blob).values())
    assert 2 * values < record.traffic.up < 2.5 * values
    for name, tensor in tensors.items():
        # bf16 has 8 binary digits: what is trained on is that close, and so is what comes back of the change.
        assert (tensor - whole[name]).norm() <= 0.25 * (whole[name] - start.supernet[name]).norm() + 1e-6


def test_bf16_does_not_lose_changes_that_are_smaller_than_its_steps(config: RunConfig, tmp_path: Path) -> None:
    def run(dtype: str) -> tuple[Tensors, Tensors]:
        slow = dataclasses.replace(
            config,
            rounds=4,
            output=str(tmp_path / dtype),
            clients=ClientsConfig(count=8, per_round=2),
            client=ClientConfig(epochs=1, batch_size=16, lr=2e-4, lr_schedule="constant", weight_decay=0.0),
            evaluation=_rarely(config),
            flower=_flower(wire_dtype=dtype),
        )
        run, state, models = prepared_run(slow, LocalLink(tmp_path / f"{dtype}-link", 8))
        start = {name: tensor.clone() for name, tensor in models.supernet.items()}
        train(run, state, models)
        return start, models.supernet

    (start, whole), (_, narrow) = run("fp32"), run("bf16")
    # Norms start at 1, where the next smaller number of bf16 is 1/256 away: none of four rounds moves them so far.
    name = "stages.1.0.expand.norm.weight"
    change, kept = whole[name] - start[name], narrow[name] - start[name]
    assert (start[name] == 1).all()
    assert 0 < change.abs().max() < 1 / 512
    assert torch.equal((start[name] + change).bfloat16().float(), start[name])
    assert (kept - change).norm() < 0.2 * change.norm()


@pytest.mark.parametrize(
    "odd", [torch.ones(3, 1), torch.ones(3, 2, dtype=torch.float32), torch.ones(3, 2).to(torch.int8)]
)
def test_what_cannot_be_added_is_left_to_be_refused(odd: Tensor) -> None:
    sent = {"a": torch.ones(3, 2)}
    assert restored(sent, {"a": odd}, "bf16")["a"] is odd
    assert restored(sent, {"b": odd}, "bf16")["b"] is odd


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "non-finite"), (3.3e38, "non-finite")])
def test_a_change_that_makes_a_weight_infinite_is_refused(
    config: RunConfig, link: LocalLink, value: float, kind: str
) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors[_BIAS] = torch.full((10,), value).bfloat16()

    narrow = dataclasses.replace(config, flower=_flower(wire_dtype="bf16"))
    run, state, models = prepared_run(narrow, link)
    models.supernet[_BIAS.removeprefix("0/")] += 3.3e38
    link.spoil = only(_ODD, "train", edited(tensors=spoil))
    # Weights as large as that are no good to train with either: all that matters is how the answer is counted.
    engine = engine_of(run)
    architecture = smallest(run.space)
    task = dataclasses.replace(_a_task(engine), architecture=architecture, client=_ODD)
    task = dataclasses.replace(task, tensors=views(run.space, models.supernet, architecture))
    (answer,) = engine.run([task])
    failure = check_update(answer) if isinstance(answer, Update) else answer
    assert failure is not None
    assert failure.kind == kind
    assert state.round == 0
    assert models.velocity is None


def _a_task(engine: FlowerEngine) -> Task:
    engine.available()
    return micro_task(smallest())


# What a client may say.


def _replaced(payload: bytes, blob: bytes) -> bytes:
    del blob
    return payload


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.open, (self._path, os.O_CREAT | os.O_WRONLY)


def _job(**changes: Any) -> Spoil:
    """Return a spoil that replaces fields of the one job's result; ``...`` leaves one out."""

    def edit(fields: dict[str, Any]) -> None:
        job = {**fields["jobs"][0], **changes}
        fields["jobs"] = [{name: value for name, value in job.items() if value is not ...}]

    return edited(edit)


def _fields(**changes: Any) -> Spoil:
    def edit(fields: dict[str, Any]) -> None:
        fields.update(changes)
        for name in [name for name, value in fields.items() if value is ...]:
            del fields[name]

    return edited(edit)


def _tensor(name: str, change: Callable[[Tensor], Tensor | None]) -> Spoil:
    """Return a spoil that changes one tensor, or drops it."""

    def edit(tensors: Tensors) -> None:
        changed = change(tensors.pop(name))
        if changed is not None:
            tensors[name] = changed

    return edited(tensors=edit)


def _extra(name: str) -> Spoil:
    return edited(tensors=lambda tensors: tensors.update({name: torch.ones(1)}))


def _blob(make: Callable[[bytes], bytes]) -> Spoil:
    def spoil(message: Message, answer: Callable[[], Honest]) -> Reaction:
        del message
        header, blob = answer()
        return header, make(blob)

    return spoil


def _header(header: bytes) -> Spoil:
    return lambda message, answer: (header, answer()[1])


def _filled(value: float) -> Callable[[Tensor], Tensor]:
    def fill(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[3] = value
        return tensor

    return fill


def _narrow(kind: str, width: int) -> Spoil:
    """Return a spoil that sends all tensors as bytes of another type."""

    def make(blob: bytes) -> bytes:
        shapes = {name: tuple(tensor.shape) for name, tensor in wire.parse_blob(blob).items()}
        ends = list(itertools.accumulate(width * torch.Size(shape).numel() for shape in shapes.values()))
        starts = [0, *ends]
        entries = {n: (kind, s, (starts[i], ends[i])) for i, (n, s) in enumerate(shapes.items())}
        return raw_blob(entries, b"\0" * ends[-1])

    return _blob(make)


_DEEP = json.loads("[" * 300 + "]" * 300)
_ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n\u202e"

_MALICIOUS: dict[str, tuple[Spoil, str]] = {
    "NaN": (_tensor(_BIAS, _filled(float("nan"))), "non-finite"),
    "infinity": (_tensor(_WEIGHT, _filled(float("inf"))), "non-finite"),
    "both infinities": (_tensor(_WEIGHT, lambda t: _filled(float("inf"))(-t * float("inf"))), "non-finite"),
    "wider": (_tensor(_BIAS, lambda t: torch.cat([t, t])), "shape"),
    "broadcastable column": (_tensor(_WEIGHT, lambda t: t[:, :1]), "shape"),
    "broadcastable row": (_tensor(_WEIGHT, lambda t: t[:1]), "shape"),
    "scalar": (_tensor(_BIAS, lambda t: t[0]), "shape"),
    "another axis": (_tensor(_BIAS, lambda t: t[None]), "shape"),
    "flat": (_tensor(_WEIGHT, lambda t: t.flatten()), "shape"),
    "empty tensor": (_tensor(_BIAS, lambda t: t[:0]), "shape"),
    "missing name": (_tensor(_BIAS, lambda t: None), "names"),
    "no tensor": (edited(tensors=lambda tensors: tensors.clear()), "names"),
    "unknown name": (_extra("0/head.classifier.linear.scale"), "names"),
    "name of escapes": (_extra("0/" + _ESCAPES * 100), "names"),
    "name of another client's block": (_extra("0/stages.1.9.expand.conv.weight"), "names"),
    "name of no job": (_extra("bias"), "malformed"),
    "name of another job": (_extra("1/bias"), "malformed"),
    "name of a huge job": (_extra("9" * 5000 + "/bias"), "malformed"),
    "float64": (_tensor(_BIAS, lambda t: t.double()), "dtype"),
    "float16": (_tensor(_BIAS, lambda t: t.half()), "dtype"),
    "bf16": (edited(tensors=lambda ts: ts.update({n: t.bfloat16() for n, t in ts.items()})), "dtype"),
    "int8": (_tensor(_BIAS, lambda t: t.to(torch.int8)), "dtype"),
    "bool": (_tensor(_BIAS, lambda t: t > 0), "dtype"),
    "complex": (_narrow("C64", 8), "dtype"),
    "float8": (_narrow("F8_E4M3", 1), "dtype"),
    "uint16": (_narrow("U16", 2), "dtype"),
    **{
        f"examples {i}": (_job(examples=odd), "examples")
        for i, odd in enumerate([-1, 0, 10**18, 10**290, 352.0, True, "352", None, ..., [352], _ESCAPES])
    },
    **{
        f"examples beyond JSON {i}": (_job(examples=odd), "malformed")
        for i, odd in enumerate([10**400, _DEEP, float("nan"), float("inf"), "\ud800"])
    },
    **{
        f"loss {i}": (_job(loss=odd), "malformed")
        for i, odd in enumerate(
            ["0.1", float("nan"), float("inf"), -float("inf"), 10**400, True, [0.1], {}, _DEEP, _ESCAPES]
        )
    },
    "loss None": (_job(loss=None), "non-finite"),
    "loss missing": (_job(loss=...), "non-finite"),
    "loss beyond fp32": (_job(loss=1e308), "non-finite"),
    **{
        f"seconds {i}": (_job(seconds=odd), "malformed")
        for i, odd in enumerate([float("nan"), float("inf"), "1", None, ..., 10**400, _DEEP])
    },
    "another architecture": (_job(architecture=smallest().to_json()), "malformed"),
    "no architecture": (_job(architecture=...), "malformed"),
    "architecture of nonsense": (_job(architecture=_DEEP), "malformed"),
    "another round": (_job(round=2), "malformed"),
    "round as text": (_job(round="1"), "malformed"),
    "round as truth": (_job(round=True), "malformed"),
    "no round": (_job(round=...), "malformed"),
    "too many jobs": (edited(lambda fields: fields["jobs"].append(fields["jobs"][0])), "malformed"),
    **{
        f"jobs {i}": (_fields(jobs=odd), "malformed")
        for i, odd in enumerate([[], None, ..., 1, "jobs", {"0": {}}, [1], [None], [[]], _DEEP])
    },
    "blob empty": (_blob(lambda blob: b""), "names"),
    "blob of text": (_blob(lambda blob: b"no tensors" * 9), "malformed"),
    "blob cut": (_blob(lambda blob: blob[:-1]), "malformed"),
    "blob too long": (_blob(lambda blob: blob + b"\0"), "malformed"),
    "blob of type F4": (_narrow("F4", 1), "malformed"),
    "blob of escapes": (_blob(lambda blob: raw_blob({"0/a": (_ESCAPES, [1], [0, 4])}, b"\0" * 4)), "malformed"),
    "blob too large": (_blob(lambda blob: blob + b"\0" * (3 << 20)), "size"),
    "header too long": (_header(b'{"jobs": "' + b"x" * wire.MOST_HEADER_BYTES + b'"}'), "malformed"),
    "header empty": (_header(b""), "malformed"),
    "header of text": (_header(b"thank you"), "malformed"),
    "header of bytes": (_header(b"\xff\xfe\x00"), "malformed"),
    "header a list": (_header(b"[]"), "malformed"),
    "header deep": (_header(b"[" * 100_000), "malformed"),
    "refused": (_header(wire.encode({"refused": "no", "kind": "refused"})), "refused"),
    "refused with escapes": (_header(wire.encode({"refused": _ESCAPES + "no"})), "refused"),
    "refused at length": (_header(wire.encode({"refused": "x" * 1_000_000, "kind": "lost"})), "lost"),
    "refused with nonsense": (_header(wire.encode({"refused": [[["no"]]], "kind": [1]})), "refused"),
    "refused without words": (_header(wire.encode({"refused": None, "kind": "memory"})), "memory"),
    "error with escapes": (lambda message, answer: Error(RAISED, _ESCAPES * 1000), "error"),
    "error of a killed process": (lambda message, answer: Error(PROCESS_GONE), "lost"),
    "error of a node": (lambda message, answer: Error(NODE_GONE), "lost"),
    "error of the deadline": (lambda message, answer: Error(EXPIRED), "timeout"),
}


@pytest.mark.parametrize(("spoil", "kind"), _MALICIOUS.values(), ids=_MALICIOUS)
def test_a_client_that_says_anything_else_fails_alone(
    rounds: _Rounds, tmp_path: Path, without: Tensors, spoil: Spoil, kind: str
) -> None:
    run, state, tensors = rounds.train(tmp_path, spoil)
    assert state.failures == {kind: 1}
    (record,) = recorder(run).records
    told = _told(record)
    assert {client: fields.get("failure") for client, fields in told.items()} == {0: None, 1: None, _ODD: kind, 3: None}
    reason = told[_ODD]["reason"]
    assert reason.isprintable()
    assert 0 < len(reason) <= 400
    assert same_bytes(tensors, without)
    json.dumps(record.to_json(), allow_nan=False)
    assert rounds.link.files() == []


def test_a_pickle_is_never_unpickled(rounds: _Rounds, without: Tensors, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    bomb = pickle.dumps(_Bomb(trap))
    torch_file = tmp_path / "torch"
    torch.save(_Bomb(trap), torch_file)
    for number, payload in enumerate((bomb, torch_file.read_bytes())):
        _, state, tensors = rounds.train(tmp_path / f"run-{number}", _blob(functools.partial(_replaced, payload)))
        assert state.failures == {"malformed": 1}
        assert same_bytes(tensors, without)
    assert not trap.exists()
    os.close(pickle.loads(bomb))  # noqa: S301 - the bomb is ours, and armed
    assert trap.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        _job(seconds=-5), _job(seconds=1e300), _job(seconds=0), _job(seconds=1 << 60), _job(loss=-1.0),
        _job(loss=1e30), _job(more="x" * 1000), _fields(client=3, more=_ESCAPES), _fields(protocol=99),
    ],
    ids=range(9),
)  # fmt: skip
def test_what_does_no_harm_is_taken(rounds: _Rounds, tmp_path: Path, everyone: Tensors, spoil: Spoil) -> None:
    run, state, tensors = rounds.train(tmp_path, spoil)
    assert state.failures == {}
    assert same_bytes(tensors, everyone)
    (record,) = recorder(run).records
    assert 0 <= record.sgd_seconds <= record.seconds
    assert 0 <= record.overhead_share <= 1


# Calibration and evaluation.


def _ready(config: RunConfig, link: LocalLink) -> Run:
    run = prepared_run(config, link)[0]
    engine_of(run).available()
    return run


def _calibrations() -> list[CalibrationTask]:
    """Two tasks of every client, on the smallest and the largest network."""
    supernet = random_tensors()
    return [
        CalibrationTask(client, architecture, views(MICRO, supernet, architecture), 2, 16, seed=7)
        for client in range(4)
        for architecture in (smallest(), largest())
    ]


def _statistic(kind: str, change: Callable[[Tensor], Tensor | None]) -> Spoil:
    """Return a spoil that changes one statistic of the first job."""

    def edit(tensors: Tensors) -> None:
        name = next(name for name in sorted(tensors) if name.startswith("0/") and name.endswith(kind))
        changed = change(tensors.pop(name))
        if changed is not None:
            tensors[name] = changed

    return edited(tensors=edit)


def _first(**changes: Any) -> Spoil:
    return edited(lambda fields: fields["jobs"][0].update(changes))


def _swap(tensors: Tensors) -> None:
    own = dict(tensors)
    tensors.clear()
    for name, tensor in own.items():
        tensors[("1" if name[0] == "0" else "0") + name[1:]] = tensor


_BAD_STATISTICS: dict[str, tuple[Spoil, str]] = {
    "another network": (edited(tensors=_swap), "shape"),
    "missing": (_statistic("running_mean", lambda t: None), "shape"),
    "another shape": (_statistic("running_mean", lambda t: t[:1]), "shape"),
    "more": (_extra("0/head.norm.running_max"), "shape"),
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
    "fewer images than batches": (_first(images=1), "malformed"),
    "fp32": (_statistic("running_mean", lambda t: t.float()), "dtype"),
    "integers": (_statistic("running_mean", lambda t: t.long()), "dtype"),
    "float8": (_statistic("running_mean", lambda t: t.to(torch.float8_e4m3fn)), "dtype"),
    "too many batches": (_first(batches=3), "malformed"),
    "negative batches": (_first(batches=-1), "malformed"),
    "no batches but sums": (_first(batches=0, images=0), "shape"),
    "batches as text": (_first(batches="2"), "malformed"),
    "too many images": (_first(images=33), "malformed"),
    "negative images": (_first(images=-1), "malformed"),
    "another architecture": (_first(architecture=largest().to_json()), "malformed"),
}


@pytest.mark.parametrize(("spoil", "kind"), _BAD_STATISTICS.values(), ids=_BAD_STATISTICS)
def test_statistics_that_cannot_be_fail_alone(config: RunConfig, link: LocalLink, spoil: Spoil, kind: str) -> None:
    engine = engine_of(_ready(config, link))
    expected = list(engine.calibrate(_calibrations()))
    link.spoil = only(_ODD, "calibrate", spoil)
    answers = list(engine.calibrate(_calibrations()))
    first = 2 * _ODD
    odd = answers[first]
    assert isinstance(odd, Failure)
    assert (odd.kind, odd.task.client) == (kind, _ODD)
    for index, (answer, wanted) in enumerate(zip(answers, expected, strict=True)):
        if index == first + 1 and isinstance(answer, Failure):
            # A spoil may reach the client's other job too.
            assert kind == "shape"
        elif index != first:
            assert isinstance(answer, Statistics)
            assert isinstance(wanted, Statistics)
            assert (answer.batches, answer.images) == (wanted.batches, wanted.images) == (2, 32)
            assert same_bytes(dict(answer.sums), dict(wanted.sums))


def test_a_clients_jobs_travel_as_one_message(config: RunConfig, link: LocalLink) -> None:
    engine = engine_of(_ready(config, link))
    answers = list(engine.calibrate(_calibrations()))
    assert [message.client for message in link.asked("calibrate")] == [0, 1, 2, 3]
    for message in link.asked("calibrate"):
        assert len(message.fields["jobs"]) == 2
    for task, answer in zip(_calibrations(), answers, strict=True):
        assert isinstance(answer, Statistics)
        assert {name: tuple(t.shape) for name, t in answer.sums.items()} == statistics_shapes(MICRO, task.architecture)
        assert {tensor.dtype for tensor in answer.sums.values()} == {torch.float64}


def test_statistics_outlive_the_file_they_came_in(config: RunConfig, link: LocalLink) -> None:
    engine = engine_of(_ready(config, link))
    answers = list(engine.calibrate(_calibrations()))
    assert link.files() == []
    assert all(isinstance(a, Statistics) and all(t.isfinite().all() for t in a.sums.values()) for a in answers)


def test_every_norm_has_a_mean_a_variance_and_a_squared_mean() -> None:
    shapes = statistics_shapes(MICRO, largest())
    norms = [name for name in tensor_shapes(MICRO, largest()) if name.endswith("norm.weight")]
    assert len(shapes) == 3 * len(norms)
    for norm in ("group", "none"):
        assert statistics_shapes(dataclasses.replace(MICRO, norm=norm), largest()) == {}


def _evaluations() -> list[EvaluationTask]:
    network = blank_network(MICRO, random_tensors(), smallest())
    return [EvaluationTask(client, smallest(), network.state_dict(), 64) for client in range(4)]


@pytest.mark.parametrize(
    "changes",
    [
        {"correct": 10**6}, {"correct": -1}, {"correct": True}, {"correct": "3"}, {"correct": 1.0}, {"correct": None},
        {"images": 10**6, "correct": 10**6}, {"images": -1}, {"images": True}, {"images": 0},
    ],
    ids=str,
)  # fmt: skip
def test_counts_that_cannot_be_fail_alone(config: RunConfig, link: LocalLink, changes: dict[str, Any]) -> None:
    run = _ready(config, link)
    engine = engine_of(run)
    expected = list(engine.evaluate(_evaluations()))
    link.spoil = only(_ODD, "evaluate", _first(**changes))
    answers = list(engine.evaluate(_evaluations()))
    odd = answers[_ODD]
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


def test_a_client_that_fails_in_an_evaluation_has_no_part_in_it(config: RunConfig, tmp_path: Path) -> None:
    def probes(number: int, spoil: Spoil, *kinds: str) -> list[float]:
        link = LocalLink(tmp_path / f"link-{number}", 4)
        link.spoil = spoil
        run, state, _ = trained(dataclasses.replace(config, output=f"{config.output}-{number}"), link)
        (record,) = recorder(run).records
        assert record.failures == {}
        # Of all jobs in a message one failure counts, and the message's bytes once.
        assert [(failure["client"], failure["failure"]) for failure in record.evaluation_failures] == [
            (_ODD, kind) for kind in kinds
        ]
        assert state.failures == dict.fromkeys(kinds, 1)
        others = [*link.asked("calibrate"), *link.asked("evaluate")]
        assert record.evaluation_traffic.down == sum(message.size for message in others)
        return [probe.accuracy for probe in record.probes]

    error: Spoil = lambda message, answer: Error(RAISED)  # noqa: E731
    failed = probes(0, only(_ODD, "evaluate", error), "error")
    every = edited(lambda fields: [job.update(correct=10**6) for job in fields["jobs"]])
    assert probes(1, only(_ODD, "evaluate", every), "malformed") == failed != probes(2, honest)
    assert len(failed) == 2
    unmeasured = probes(3, only(_ODD, "calibrate", error), "error")
    negative = edited(tensors=lambda ts: ts.update({n: -t - 1 for n, t in ts.items() if n.endswith("running_var")}))
    assert probes(4, only(_ODD, "calibrate", negative), "non-finite") == unmeasured


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


# Faults.


def test_a_client_that_is_not_there_is_drawn_no_more(config: RunConfig, link: LocalLink) -> None:
    two = dataclasses.replace(config, rounds=2, evaluation=_rarely(config))

    def spoil(message: Message, answer: Callable[[], Honest]) -> Reaction:
        if message.asked == "train" and message.fields["jobs"][0]["round"] == 1:
            link.online.pop(f"node-{_ODD}", None)
        return answer()

    link.spoil = spoil
    run, state, _ = trained(two, link)
    first, second = recorder(run).records
    assert state.failures == {"lost": 1}
    assert _told(first)[_ODD]["failure"] == "lost"
    assert sorted(_told(second)) == [0, 1, 3]


def test_a_client_that_leaves_after_it_was_drawn_is_offline(config: RunConfig, link: LocalLink) -> None:
    run, state, models = prepared_run(config, link)
    looks = itertools.count()

    def before(what: str) -> None:
        # It is there when the clients are drawn, and no more when they are asked.
        if what == "nodes" and next(looks) == 1:
            del link.online[f"node-{_ODD}"]

    link.before = before
    state = train(run, state, models)
    assert state.failures == {"offline": 1}
    record = recorder(run).records[0]
    assert _told(record)[_ODD]["failure"] == "offline"
    assert record.traffic.down == sum(message.size for message in link.asked("train"))


def test_a_client_that_never_answers_is_timed_out_and_has_to_speak_before_it_trains_again(
    config: RunConfig, link: LocalLink, without: Tensors
) -> None:
    silent = {"train"}
    link.spoil = lambda message, answer: None if message.client == _ODD and message.asked in silent else answer()
    run, state, models = prepared_run(config, link)
    engine = engine_of(run)
    engine._config = dataclasses.replace(engine._config, deadline=0.02)
    silent.add("describe")
    state = train(run, state, models)
    assert state.failures == {"timeout": 1}
    assert same_bytes(models.supernet, without)
    assert [engine.available() for _ in range(3)] == [[0, 1, 3]] * 3
    silent.clear()
    assert [engine.available(), engine.available()][-1] == [0, 1, 2, 3]
    assert [message.client for message in link.asked("describe")] == [0, 1, 2, 3, _ODD]


@pytest.mark.parametrize("client", range(4))
def test_a_client_that_failed_does_not_count_as_trained(rounds: _Rounds, tmp_path: Path, client: int) -> None:
    run, well, _ = rounds.train(tmp_path / "well", honest)
    spoiled, state, _ = rounds.train(tmp_path / "spoiled", _job(examples=-1), client)
    macs = [{told["client"]: told["macs"] for told in recorder(one).records[0].clients} for one in (run, spoiled)]
    assert macs[0] == macs[1]
    assert sum(state.trained) == sum(well.trained) - 1 == 3
    for ours, all_ in ((state.counts.smallest, well.counts.smallest), (state.counts.largest, well.counts.largest)):
        assert ours == tuple(0 if number == client else count for number, count in enumerate(all_))


def test_failures_of_several_kinds_are_counted_each_and_kept_with_the_run(config: RunConfig, link: LocalLink) -> None:
    spoils: dict[int, Spoil] = {0: _job(loss="x"), 1: _tensor(_BIAS, _filled(float("nan"))), 2: _job(examples=0)}
    config = dataclasses.replace(config, rounds=2, flower=_flower(quorum=0.25), evaluation=_rarely(config))
    link.spoil = lambda message, answer: (
        spoils.get(message.client, honest)(message, answer) if message.asked == "train" else answer()
    )
    run, state, _ = trained(config, link)
    assert state.failures == {"malformed": 2, "non-finite": 2, "examples": 2}
    assert load_checkpoint(newest_checkpoint(Path(str(config.output))), MICRO).state.failures == state.failures
    for record in recorder(run).records:
        assert record.failures == {"malformed": 1, "non-finite": 1, "examples": 1}
        assert record.traffic.up == sum(
            link.bytes_up[m.name] for m in link.asked("train") if m.fields["jobs"][0]["round"] == record.round
        )


@pytest.mark.parametrize(("quorum", "fails"), [(0.5, 2), (0.75, 1), (0.25, 3), (0.01, 3)])
def test_a_round_with_a_quorum_is_a_round(config: RunConfig, link: LocalLink, quorum: float, fails: int) -> None:
    link.spoil = lambda message, answer: (
        Error(RAISED) if message.asked == "train" and message.client < fails else answer()
    )
    config = dataclasses.replace(config, flower=_flower(quorum=quorum, retries=2), evaluation=_rarely(config))
    _, state, _ = trained(config, link)
    assert (state.round, state.failures) == (1, {"error": fails})
    # Nobody is asked again once there are enough.
    assert len(link.asked("train")) == 4


@pytest.mark.parametrize(("quorum", "fails"), [(0.51, 2), (1.0, 1), (0.26, 3), (0.01, 4)])
def test_a_round_without_a_quorum_is_tried_again_and_then_ends_the_run(
    config: RunConfig, link: LocalLink, quorum: float, fails: int
) -> None:
    link.spoil = lambda message, answer: (
        Error(RAISED, "ImportError") if message.asked == "train" and message.client < fails else answer()
    )
    config = dataclasses.replace(config, flower=_flower(quorum=quorum, retries=2))
    run, state, models = prepared_run(config, link)
    start = {name: tensor.clone() for name, tensor in models.supernet.items()}
    with pytest.raises(UserError) as caught:
        train(run, state, models)
    message = str(caught.value)
    who = "all 4 clients" if fails == 4 else f"{fails} of 4 clients"
    assert f"{who} of round 1 failed, asked 3 times (client " in message
    assert ": ImportError)" in message
    assert f"round 0 is kept in {newest_checkpoint(Path(str(config.output)))}" in message
    assert message.endswith(f"go on with: train-supernet --resume {config.output}")
    assert "\n" not in message
    assert same_bytes(models.supernet, start)
    (lost,) = recorder(run).lost
    assert lost.failures == {"error": 3 * fails}
    outcome = {client["client"]: client.get("failure") for client in lost.clients}
    assert outcome == {client: "error" if client < fails else None for client in range(4)}
    # Those that answered are not asked again.
    asked = [message.client for message in link.asked("train")]
    assert [asked.count(client) for client in range(4)] == [3 if client < fails else 1 for client in range(4)]


def test_whoever_asks_to_stop_does_not_wait_for_clients_nor_for_another_try(config: RunConfig, link: LocalLink) -> None:
    config = dataclasses.replace(config, flower=_flower(quorum=1.0, retries=2, patience=3600.0, min_clients=1))
    prepared = new_run(config, SILENT, link)
    start, asked = prepared.checkpoint, [False]
    run = assemble(prepared, Recorder(), lambda: asked[0])

    def fail(message: Message, answer: Callable[[], Honest]) -> Reaction:
        if message.asked != "train":
            return answer()
        asked[0] = True
        return Error(RAISED, "ImportError")

    link.spoil = fail
    state = train(run, start.state, start.models)
    assert (state.round, len(link.asked("train"))) == (0, 4)
    (lost,) = recorder(run).lost
    assert lost.failures == {"error": 4}
    # Too few are there, for an hour if need be.
    link.online.clear()
    assert train(run, state, start.models).round == 0
    assert len(recorder(run).lost) == 1
    assert load_checkpoint(newest_checkpoint(Path(str(config.output))), MICRO).state == state


def test_a_client_that_answers_when_it_is_asked_again_is_merged(
    config: RunConfig, link: LocalLink, everyone: Tensors
) -> None:
    tries = itertools.count()

    def flaky(message: Message, answer: Callable[[], Honest]) -> Reaction:
        return answer() if next(tries) else Error(RAISED)

    link.spoil = only(_ODD, "train", flaky)
    run, state, tensors = trained(dataclasses.replace(config, flower=_flower(quorum=1.0, retries=1)), link)
    assert state.failures == {"error": 1}
    (record,) = recorder(run).records
    told = _told(record)[_ODD]
    assert told["failed_before"] == ["error"]
    assert "failure" not in told
    assert record.traffic.down == sum(message.size for message in link.asked("train"))
    assert recorder(run).clients == [(1, 1, 4), (1, 2, 4), (1, 3, 4), (1, 4, 4), (1, 4, 4)]
    for name, tensor in everyone.items():
        # It is added up last; that is all.
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_line_lost_in_mid_round_costs_the_answers_that_are_missing(config: RunConfig, link: LocalLink) -> None:
    run, state, models = prepared_run(config, link)
    link.pick = lambda waiting: waiting[:1]
    collected = itertools.count()

    def before(what: str) -> None:
        if what == "collect" and link.asked("train") and not link.asked("calibrate") and next(collected) == 2:
            raise LineLost("killed")

    link.before = before
    state = train(run, state, models)
    assert (state.round, state.failures) == (1, {"lost": 2})
    assert recorder(run).records[0].traffic.down == sum(message.size for message in link.asked("train"))


def test_a_line_lost_for_good_ends_the_run_with_its_last_round_kept(config: RunConfig, link: LocalLink) -> None:
    run, state, models = prepared_run(config, link)
    _impatient(run)
    link.before = lost("nodes")
    with pytest.raises(UserError) as caught:
        train(run, state, models)
    message = str(caught.value)
    assert "127.0.0.1:8000 could not be reached for 0.05 s: the SuperLink was killed; round 0 is kept in " in message
    assert message.endswith(f"go on with: train-supernet --resume {config.output}")


def test_a_line_lost_before_the_tasks_are_sent_costs_a_try_and_no_more(
    config: RunConfig, link: LocalLink, everyone: Tensors
) -> None:
    run, state, models = prepared_run(dataclasses.replace(config, flower=_flower(quorum=1.0, retries=1)), link)
    looks = itertools.count()

    def before(what: str) -> None:
        # The first look draws the clients, the second would ask them.
        if what == "nodes" and next(looks) == 1:
            raise LineLost("killed")

    link.before = before
    state = train(run, state, models)
    assert state.failures == {"offline": 4}
    assert same_bytes(models.supernet, everyone)


def test_too_few_clients_are_waited_for_and_then_named(config: RunConfig, link: LocalLink) -> None:
    del link.online["node-1"], link.online["node-2"]
    with pytest.raises(EngineError) as caught:
        prepared_run(dataclasses.replace(config, flower=_flower(patience=0.5)), link)
    assert str(caught.value) == (
        "only 2 of at least 4 clients came to 127.0.0.1:8000 in 0.5 s; start more SuperNodes, or lower "
        "--flower.min-clients or --flower.quorum"
    )
    assert not Path(str(config.output)).exists()


def test_a_run_starts_with_as_many_clients_as_it_was_told_to(config: RunConfig, link: LocalLink) -> None:
    del link.online["node-1"]
    run, state, _ = trained(dataclasses.replace(config, flower=_flower(min_clients=3)), link)
    assert state.failures == {}
    assert sorted(_told(recorder(run).records[0])) == [0, 2, 3]


def test_a_client_that_raises_inside_the_trainer_is_an_error_of_ours_to_see(
    config: RunConfig, link: LocalLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The node lets what is no answer through: Flower reports it with its own code.
    run = _ready(config, link)

    def broken(*args: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(LocalTrainer, "train", broken)
    task = dataclasses.replace(_a_task(engine_of(run)), seed=12345)
    with pytest.raises(RuntimeError, match="broken"):
        list(engine_of(run).run([task]))
