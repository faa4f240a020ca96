"""What crosses the network: round trips, and bounds on all that is received."""

import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks.strategies import runs
from helpers.runs.flower import raw_blob
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.wire import MOST_HEADER_BYTES, Request, WireError

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64)

_TEXT = st.text(max_size=8)
_PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
_JSON = _PLAIN | st.lists(_PLAIN, max_size=3) | st.dictionaries(_TEXT, _PLAIN, max_size=3)


@st.composite
def _tensors(draw: st.DrawFn) -> Tensors:
    names = draw(st.lists(st.text("abc./_", min_size=1, max_size=8), max_size=4, unique=True))
    tensors: Tensors = {}
    for name in names:
        shape = draw(st.lists(st.integers(0, 3), max_size=4))
        tensors[name] = (torch.randn(shape) * 100).to(draw(st.sampled_from(_DTYPES)))
    return tensors


def _same(first: Tensors, second: Tensors) -> bool:
    return first.keys() == second.keys() and all(
        tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


@runs(40)
@given(st.dictionaries(_TEXT, _JSON, max_size=4))
def test_a_header_comes_back_as_it_was(fields: dict[str, Any]) -> None:
    assert wire.decode(wire.encode(fields)) == fields


def test_a_request_comes_back_as_it_was() -> None:
    request = Request(
        "train", 12.5, "bf16", {"seed": 3}, {"name": "micro"}, ["ä", "b"], {"mean": [0.5]}, [{"round": 1}]
    )
    assert Request(**wire.decode(wire.encode(request))) == request


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_we_never_write_what_is_no_json(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        wire.encode({"loss": value})


def test_the_longest_header_is_read_and_a_longer_one_is_not() -> None:
    most = b'{"a":"' + b"x" * (MOST_HEADER_BYTES - 8) + b'"}'
    assert len(most) == MOST_HEADER_BYTES
    assert len(wire.decode(most)["a"]) == MOST_HEADER_BYTES - 8
    with pytest.raises(WireError, match=r"a header of 1,048,577 bytes; at most 1,048,576 are read"):
        wire.decode(most + b" ")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"\x00",
        b"\xff\xfe",
        b"\x80\x04\x95",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": ' + b"9" * 100_000 + b"}",
        b'{"a": 1} {"a": 1}',
        b'{"a": 1, "a": 1}',
        b'{"a": [NaN]}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b"NaN",
    ],
)
def test_a_header_that_is_not_json_is_refused(header: bytes) -> None:
    with pytest.raises(WireError, match="not valid JSON"):
        wire.decode(header)


@pytest.mark.parametrize("header", [b"[]", b"null", b'"refused"', b"1"])
def test_a_header_that_is_no_object_is_refused(header: bytes) -> None:
    with pytest.raises(WireError, match="not a JSON object"):
        wire.decode(header)


#: What Python's JSON reads although it is none, or is more than a float can hold; and what is JSON, but no number.
_ODD_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "true", '"1"', "null", "[1]", "{}", "1" + "0" * 400]

_NO_JSON = "a header is not valid JSON"


@pytest.mark.parametrize("text", _ODD_NUMBERS, ids=lambda text: text[:9])
def test_a_number_is_finite(text: str) -> None:
    with pytest.raises(WireError, match=rf"loss is .*; it must be a finite number|{_NO_JSON}"):
        wire.number(wire.decode(f'{{"loss": {text}}}'.encode()), "loss")


@pytest.mark.parametrize("text", [*_ODD_NUMBERS, "1.0", "-1", "11", "1e1"], ids=lambda text: text[:9])
def test_a_whole_number_is_one_and_in_bounds(text: str) -> None:
    with pytest.raises(WireError, match=rf"examples is .*; it must be a whole number from 0 to 10|{_NO_JSON}"):
        wire.integer(wire.decode(f'{{"examples": {text}}}'.encode()), "examples", 0, 10)


def test_numbers_in_bounds_are_returned() -> None:
    assert [wire.integer({"a": value}, "a", -1, 3) for value in (-1, 0, 3)] == [-1, 0, 3]
    assert [wire.number({"a": value}, "a") for value in (-1, 2.5, 1 << 60)] == [-1.0, 2.5, float(1 << 60)]
    with pytest.raises(WireError, match="a is None"):
        wire.number({}, "a")
    with pytest.raises(WireError, match="a is None"):
        wire.integer({}, "a", 0, 1)


@pytest.mark.parametrize("value", [None, "abc", [1], ["a", None], [["a"]], {"a": 1}, ["a", "b", "c", "d"]])
def test_texts_are_a_list_of_few_texts(value: object) -> None:
    with pytest.raises(WireError, match="it must be a list of at most 3 texts"):
        wire.texts({"classes": value}, "classes", 3)
    assert wire.texts({"classes": ["a", "", "a"]}, "classes", 3) == ("a", "", "a")


@pytest.mark.parametrize(
    "value", ["\x1b[2J" * 500, ["\x1b[31m"] * 500, [[[[[[[["deep"]]]]]]]], 10**3000, "x\ny"], ids=range(5)
)
def test_what_is_refused_is_quoted_in_a_short_line_without_control_characters(value: object) -> None:
    deep = json.loads("[" * 400 + "]" * 400)
    for odd in (value, deep):
        with pytest.raises(WireError) as caught:
            wire.integer({"a": odd}, "a", 0, 1)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 120


@runs(30)
@given(_tensors())
def test_a_blob_comes_back_as_it_was(tensors: Tensors) -> None:
    assert _same(wire.parse_blob(wire.make_blob(tensors)), tensors)


def test_a_file_holds_what_a_blob_does_and_its_size_is_said(tmp_path: Path) -> None:
    path, tensors = tmp_path / "blob", {"a": torch.randn(3, 4), "b": torch.arange(5)}
    assert wire.write_blob(path, tensors) == path.stat().st_size
    assert path.read_bytes() == wire.make_blob(tensors)
    assert _same(wire.read_blob(path, tensors), tensors)


def test_views_and_layouts_are_written_as_their_values() -> None:
    whole = torch.randn(4, 3, 5, 5)
    odd = {"slice": whole[:2, :, 1:4, 1:4], "last": whole.to(memory_format=torch.channels_last), "t": whole[0, 0].T}
    assert _same(wire.parse_blob(wire.make_blob(odd)), odd)


def test_bf16_is_half_the_bytes() -> None:
    tensors = {"a": torch.randn(100, 100)}
    narrow = wire.parse_blob(wire.make_blob(tensors, torch.bfloat16))["a"]
    assert torch.equal(narrow, tensors["a"].bfloat16())
    whole, half = (len(wire.make_blob(tensors, dtype)) for dtype in (None, torch.bfloat16))
    # But for the padding of the header.
    assert abs(whole - half - 20_000) < 16


_GOOD = wire.make_blob({"0/a": torch.ones(2, 3)})

_BAD_BLOBS = {
    "empty": b"",
    "short": b"\x00" * 7,
    "text": b"no tensors at all, but a text of some length",
    "pickle": pickle.dumps({"0/a": [1.0]}),
    "cut header": _GOOD[:20],
    "cut data": _GOOD[:-1],
    "longer": _GOOD + b"\x00",
    "length beyond the file": b"\xff" * 8 + _GOOD[8:],
    "length of a terabyte": (1 << 40).to_bytes(8, "little") + _GOOD[8:],
    "offsets beyond the data": raw_blob({"0/a": ("F32", [2], [0, 8])}, b"\0" * 4),
    "offsets backwards": raw_blob({"0/a": ("F32", [1], [4, 0])}, b"\0" * 4),
    "offsets that overlap": raw_blob({"0/a": ("F32", [1], [0, 4]), "0/b": ("F32", [1], [0, 4])}, b"\0" * 4),
    "offsets with a hole": raw_blob({"0/a": ("F32", [1], [4, 8])}, b"\0" * 8),
    "shape of more values": raw_blob({"0/a": ("F32", [1 << 40], [0, 4])}, b"\0" * 4),
    "shape that overflows": raw_blob({"0/a": ("F32", [1 << 62, 4], [0, 0])}),
    "no values of a shape beyond all": raw_blob({"0/a": ("F32", [0, 1 << 63], [0, 0])}),
    "negative shape": raw_blob({"0/a": ("F32", [-1], [0, 4])}, b"\0" * 4),
    "unknown type": raw_blob({"0/a": ("F31", [1], [0, 4])}, b"\0" * 4),
    "type torch lacks": raw_blob({"0/a": ("F6_E2M3", [4], [0, 3])}, b"\0" * 3),
    "type of escapes": raw_blob({"0/a": ("\x1b[2J\n" * 99, [1], [0, 4])}, b"\0" * 4),
}


@pytest.mark.parametrize("blob", _BAD_BLOBS.values(), ids=_BAD_BLOBS)
def test_a_blob_that_is_not_safetensors_is_refused_in_one_line(tmp_path: Path, blob: bytes) -> None:
    path = tmp_path / "blob"
    path.write_bytes(blob)
    reads: list[Callable[[], Tensors]] = [lambda: wire.read_blob(path, ["0/a"]), lambda: wire.parse_blob(blob)]
    for read in reads:
        with pytest.raises(WireError, match="a blob that is not safetensors") as caught:
            read()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


def test_a_blob_that_is_nearly_all_header_is_not_read(tmp_path: Path) -> None:
    # Tensors without values: each takes two dozen times its bytes of the header in memory.
    path = tmp_path / "blob"
    path.write_bytes(raw_blob({f"0/{index}": ("F32", [0], [0, 0]) for index in range(15_000)}))
    assert len(wire.parse_blob(path.read_bytes())) == 15_000
    started = time.process_time()
    with pytest.raises(WireError, match=r"a header of [0-9,]+ bytes; at most [0-9,]+ are read"):
        wire.read_blob(path, [f"0/stages.1.{index}.expand.conv.weight" for index in range(300)])
    assert time.process_time() - started < 0.05


def test_a_blob_of_all_that_was_asked_for_is_read_however_many_that_is(tmp_path: Path) -> None:
    # Names and shapes of a space of many stages, and one name more, which is for others to refuse.
    asked = {f"0/stages.{index}.\u00fc.weight": torch.zeros(8, 8, 1, 1) for index in range(5000)}
    path = tmp_path / "blob"
    wire.write_blob(path, {**asked, "0/odd": torch.zeros(1)})
    assert len(wire.read_blob(path, asked)) == 5001


def test_a_blob_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="not safetensors"):
        wire.read_blob(tmp_path / "none", [])


@runs(30)
@given(st.lists(_tensors(), max_size=4))
def test_separated_undoes_joined(jobs: list[Tensors]) -> None:
    together = wire.joined(jobs)
    assert len(together) == sum(map(len, jobs))
    apart = wire.separated(wire.parse_blob(wire.make_blob(together)), len(jobs))
    assert all(_same(got, wanted) for got, wanted in zip(apart, jobs, strict=True))


def test_jobs_may_share_tensors() -> None:
    shared: Tensor = torch.randn(6, 6)
    jobs = [{"w": shared}, {"w": shared, "part": shared[:3]}, {"w": shared.T}]
    apart = wire.separated(wire.parse_blob(wire.make_blob(wire.joined(jobs))), 3)
    assert all(_same(got, wanted) for got, wanted in zip(apart, jobs, strict=True))


_NO_JOBS = [
    "a",
    "",
    "/a",
    "2/a",
    "-1/a",
    "+0/a",
    " 0/a",
    "0",
    "00/a",
    "01/a",
    "1_0/a",
    "0x0/a",
    "٠/a",
    "²/a",
    "9" * 5000 + "/a",
]


@pytest.mark.parametrize("name", _NO_JOBS, ids=range(len(_NO_JOBS)))
def test_a_tensor_of_no_job_is_refused(name: str) -> None:
    with pytest.raises(WireError, match="belongs to no job") as caught:
        wire.separated({"0/a": torch.ones(1), name: torch.ones(1)}, 2)
    assert len(str(caught.value)) < 120


def test_names_may_hold_slashes_and_jobs_may_be_empty() -> None:
    one = torch.ones(1)
    assert wire.separated({"1/a/b": one, "1/": one}, 3) == [{}, {"a/b": one, "": one}, {}]
    assert wire.separated({}, 0) == []


@pytest.mark.parametrize(("kind", "width"), [("train", 4), ("calibrate", 8), ("evaluate", 0), ("describe", 0)])
def test_the_most_bytes_of_an_answer_follow_from_the_question(kind: wire.MessageKind, width: int) -> None:
    fixed = MOST_HEADER_BYTES + (1 << 20)
    assert wire.most_answer_bytes(kind, "fp32", 107) == width * 107 + fixed
    assert wire.most_answer_bytes("train", "bf16", 107) == 2 * 107 + fixed
