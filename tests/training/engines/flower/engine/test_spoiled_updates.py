"""Whatever a client says of its training, it fails alone."""

import functools
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs.flower import (
    EXPIRED,
    NODE_GONE,
    PROCESS_GONE,
    RAISED,
    Error,
    Spoil,
    edited,
    raw_blob,
)
from helpers.runs.flower_rounds import FirstRounds, by_client
from helpers.runs.flower_spoils import (
    BIAS,
    ESCAPES,
    ODD,
    WEIGHT,
    as_blob,
    as_bytes_of,
    as_header,
    filled,
    of_fields,
    of_job,
    of_tensor,
    one_more,
)
from helpers.runs.simulation import recorder, same_bytes, smallest

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.engines.flower import wire


def _replaced(payload: bytes, blob: bytes) -> bytes:
    del blob
    return payload


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.open, (self._path, os.O_CREAT | os.O_WRONLY)


_DEEP = json.loads("[" * 300 + "]" * 300)

_OTHER_PROTOCOLS: list[Any] = [99, 0, float(wire.PROTOCOL), str(wire.PROTOCOL), True, None, ..., [], ESCAPES]

_MALICIOUS: dict[str, tuple[Spoil, str]] = {
    "NaN": (of_tensor(BIAS, filled(float("nan"))), "non-finite"),
    "infinity": (of_tensor(WEIGHT, filled(float("inf"))), "non-finite"),
    "both infinities": (of_tensor(WEIGHT, lambda t: filled(float("inf"))(-t * float("inf"))), "non-finite"),
    "a value of 1e30": (of_tensor(WEIGHT, filled(1e30)), "outlier"),
    "a value of 3e38": (of_tensor(BIAS, filled(3e38)), "outlier"),
    "values of 3e38": (edited(tensors=lambda ts: ts.update({n: t * 0 + 3e38 for n, t in ts.items()})), "outlier"),
    "a million times": (of_tensor(WEIGHT, lambda t: t * 1e6), "outlier"),
    "wider": (of_tensor(BIAS, lambda t: torch.cat([t, t])), "shape"),
    "broadcastable column": (of_tensor(WEIGHT, lambda t: t[:, :1]), "shape"),
    "broadcastable row": (of_tensor(WEIGHT, lambda t: t[:1]), "shape"),
    "scalar": (of_tensor(BIAS, lambda t: t[0]), "shape"),
    "another axis": (of_tensor(BIAS, lambda t: t[None]), "shape"),
    "flat": (of_tensor(WEIGHT, lambda t: t.flatten()), "shape"),
    "empty tensor": (of_tensor(BIAS, lambda t: t[:0]), "shape"),
    "missing name": (of_tensor(BIAS, lambda t: None), "names"),
    "no tensor": (edited(tensors=lambda tensors: tensors.clear()), "names"),
    "unknown name": (one_more("0/head.classifier.linear.scale"), "names"),
    "name of escapes": (one_more("0/" + ESCAPES * 100), "names"),
    "name of another client's block": (one_more("0/stages.1.9.expand.conv.weight"), "names"),
    "name of no job": (one_more("bias"), "malformed"),
    "name of another job": (one_more("1/bias"), "malformed"),
    "name of a huge job": (one_more("9" * 5000 + "/bias"), "malformed"),
    "float64": (of_tensor(BIAS, lambda t: t.double()), "dtype"),
    "float16": (of_tensor(BIAS, lambda t: t.half()), "dtype"),
    "bf16": (edited(tensors=lambda ts: ts.update({n: t.bfloat16() for n, t in ts.items()})), "dtype"),
    "int8": (of_tensor(BIAS, lambda t: t.to(torch.int8)), "dtype"),
    "bool": (of_tensor(BIAS, lambda t: t > 0), "dtype"),
    "complex": (as_bytes_of("C64", 8), "dtype"),
    "float8": (as_bytes_of("F8_E4M3", 1), "dtype"),
    "uint16": (as_bytes_of("U16", 2), "dtype"),
    **{
        f"examples {i}": (of_job(examples=odd), "examples")
        for i, odd in enumerate([-1, 0, 10**18, 10**290, 352.0, True, "352", None, ..., [352], ESCAPES])
    },
    **{
        f"examples beyond JSON {i}": (of_job(examples=odd), "malformed")
        for i, odd in enumerate([10**400, _DEEP, float("nan"), float("inf"), "\ud800"])
    },
    **{
        f"loss {i}": (of_job(loss=odd), "malformed")
        for i, odd in enumerate(
            ["0.1", float("nan"), float("inf"), -float("inf"), 10**400, True, [0.1], {}, _DEEP, ESCAPES]
        )
    },
    **{f"loss below zero {i}": (of_job(loss=odd), "malformed") for i, odd in enumerate([-0.5, -1, -1e30, -1e-2])},
    **{
        f"client {i}": (of_fields(client=odd), "malformed")
        for i, odd in enumerate([3, -1, 2.0, True, "2", None, ..., [2], 10**400, _DEEP, ESCAPES])
    },
    **{f"protocol {i}": (of_fields(protocol=odd), "version") for i, odd in enumerate(_OTHER_PROTOCOLS)},
    "loss None": (of_job(loss=None), "non-finite"),
    "loss missing": (of_job(loss=...), "non-finite"),
    "loss beyond fp32": (of_job(loss=1e308), "non-finite"),
    **{
        f"seconds {i}": (of_job(seconds=odd), "malformed")
        for i, odd in enumerate([float("nan"), float("inf"), "1", None, ..., 10**400, _DEEP])
    },
    "another architecture": (of_job(architecture=smallest().to_json()), "malformed"),
    "no architecture": (of_job(architecture=...), "malformed"),
    "architecture of nonsense": (of_job(architecture=_DEEP), "malformed"),
    "another round": (of_job(round=2), "malformed"),
    "round as text": (of_job(round="1"), "malformed"),
    "round as truth": (of_job(round=True), "malformed"),
    "no round": (of_job(round=...), "malformed"),
    "too many jobs": (edited(lambda fields: fields["jobs"].append(fields["jobs"][0])), "malformed"),
    **{
        f"jobs {i}": (of_fields(jobs=odd), "malformed")
        for i, odd in enumerate([[], None, ..., 1, "jobs", {"0": {}}, [1], [None], [[]], _DEEP])
    },
    "blob empty": (as_blob(lambda blob: b""), "names"),
    "blob of text": (as_blob(lambda blob: b"no tensors" * 9), "malformed"),
    "blob cut": (as_blob(lambda blob: blob[:-1]), "malformed"),
    "blob too long": (as_blob(lambda blob: blob + b"\0"), "malformed"),
    "blob of type F4": (as_bytes_of("F4", 1), "malformed"),
    "blob of escapes": (as_blob(lambda blob: raw_blob({"0/a": (ESCAPES, [1], [0, 4])}, b"\0" * 4)), "malformed"),
    "blob too large": (as_blob(lambda blob: blob + b"\0" * (3 << 20)), "size"),
    "header too long": (as_header(b'{"jobs": "' + b"x" * wire.MOST_HEADER_BYTES + b'"}'), "malformed"),
    "header empty": (as_header(b""), "malformed"),
    "header of text": (as_header(b"thank you"), "malformed"),
    "header of bytes": (as_header(b"\xff\xfe\x00"), "malformed"),
    "header a list": (as_header(b"[]"), "malformed"),
    "header deep": (as_header(b"[" * 100_000), "malformed"),
    "refused": (as_header(wire.encode({"refused": "no", "kind": "refused"})), "refused"),
    "refused with escapes": (as_header(wire.encode({"refused": ESCAPES + "no"})), "refused"),
    "refused at length": (as_header(wire.encode({"refused": "x" * 1_000_000, "kind": "lost"})), "lost"),
    "refused with nonsense": (as_header(wire.encode({"refused": [[["no"]]], "kind": [1]})), "refused"),
    "refused without words": (as_header(wire.encode({"refused": None, "kind": "memory"})), "memory"),
    "refused with no word": (as_header(wire.encode({"refused": "\x1b"})), "refused"),
    "error with escapes": (lambda message, answer: Error(RAISED, ESCAPES * 1000), "error"),
    "error of a killed process": (lambda message, answer: Error(PROCESS_GONE), "lost"),
    "error of a node": (lambda message, answer: Error(NODE_GONE), "lost"),
    "error of the deadline": (lambda message, answer: Error(EXPIRED), "timeout"),
}


@pytest.mark.parametrize(("spoil", "kind"), _MALICIOUS.values(), ids=_MALICIOUS)
def test_a_client_that_says_anything_else_fails_alone(
    rounds: FirstRounds, tmp_path: Path, without: Tensors, spoil: Spoil, kind: str
) -> None:
    run, state, tensors = rounds.train(tmp_path, spoil)
    assert state.failures == {kind: 1}
    (record,) = recorder(run).records
    told = by_client(record)
    assert {client: fields.get("failure") for client, fields in told.items()} == {0: None, 1: None, ODD: kind, 3: None}
    reason = told[ODD]["reason"]
    assert reason.isprintable()
    assert 0 < len(reason) <= 400
    assert same_bytes(tensors, without)
    json.dumps(record.to_json(), allow_nan=False)
    assert rounds.link.files() == []


def test_a_pickle_is_never_unpickled(rounds: FirstRounds, without: Tensors, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    bomb = pickle.dumps(_Bomb(trap))
    torch_file = tmp_path / "torch"
    torch.save(_Bomb(trap), torch_file)
    for number, payload in enumerate((bomb, torch_file.read_bytes())):
        _, state, tensors = rounds.train(tmp_path / f"run-{number}", as_blob(functools.partial(_replaced, payload)))
        assert state.failures == {"malformed": 1}
        assert same_bytes(tensors, without)
    assert not trap.exists()
    os.close(pickle.loads(bomb))  # noqa: S301 - the bomb is ours, and armed
    assert trap.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        of_job(seconds=-5), of_job(seconds=1e300), of_job(seconds=0), of_job(seconds=1 << 60), of_job(loss=-1e-7),
        of_job(loss=1e30), of_job(more="x" * 1000), of_fields(more=ESCAPES),
    ],
    ids=range(8),
)  # fmt: skip
def test_what_does_no_harm_is_taken(rounds: FirstRounds, tmp_path: Path, everyone: Tensors, spoil: Spoil) -> None:
    run, state, tensors = rounds.train(tmp_path, spoil)
    assert state.failures == {}
    assert same_bytes(tensors, everyone)
    (record,) = recorder(run).records
    assert record.sgd_seconds is not None
    assert record.seconds is not None
    assert 0 <= record.sgd_seconds <= record.seconds
    assert record.overhead_share == pytest.approx(1 - record.sgd_seconds / record.seconds)
