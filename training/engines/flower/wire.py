"""Wire format of messages: a JSON header and one safetensors blob each way, with bounds on everything received."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fedpareto.supernet.common.formats.json_text import parse_json, shown
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.flower import WireDtype

#: Raised whenever a message changes; a client of another number refuses the job.
PROTOCOL = 3

#: Most bytes of a header; that of a space of many stages and thousands of classes fits.
MOST_HEADER_BYTES = 1 << 20

#: What a blob may hold beside the values of its tensors: their names and shapes.
_BLOB_EXTRA = 1 << 20

#: Bytes of a tensor in a blob's header beside its name: type, shape and place; and of names that nobody asked for,
#: which are read to be named in the refusal.
_ENTRY_BYTES, _ODD_BYTES = 160, 1 << 14

#: What safetensors and torch raise for files that are none, or whose headers lie.
_UNREADABLE = (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError)

TORCH_DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

MessageKind = Literal["describe", "train", "calibrate", "evaluate"]


class WireError(Exception):
    """Error of a malformed message; the text says which part is wrong, as one line."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


@dataclasses.dataclass(frozen=True)
class Request:
    """Request of the server to one client.

    Attributes:
        kind: kind of all the jobs.
        deadline: seconds that the client has.
        wire_dtype: type of the tensors on the wire.
        config: the run's configuration, without paths.
        space: the search space as plain values, with the data's classes once they are known.
        classes: class names; empty while they are being asked for.
        normalisation: mean and std of the pixels; empty while they are being asked for.
        jobs: fields of each job; ``packing.py`` describes the tensors of each in the blob.
    """

    kind: MessageKind
    deadline: float
    wire_dtype: WireDtype
    config: Mapping[str, Any]
    space: Mapping[str, Any]
    classes: Sequence[str]
    normalisation: Mapping[str, Sequence[float]]
    jobs: Sequence[Mapping[str, Any]]
    protocol: int = PROTOCOL
    package: str = version("fedpareto")


def encode(message: Request | Mapping[str, Any]) -> bytes:
    """Return a header as UTF-8 JSON."""
    fields = dataclasses.asdict(message) if isinstance(message, Request) else message
    return json.dumps(fields, allow_nan=False).encode()


def decode(header: bytes) -> dict[str, Any]:
    """Return the fields of a header.

    Raises:
        WireError: it is too long, or not a JSON object.
    """
    if len(header) > MOST_HEADER_BYTES:
        raise WireError(f"a header of {len(header):,} bytes; at most {MOST_HEADER_BYTES:,} are read")
    try:
        text = header.decode()
    except UnicodeDecodeError as error:
        raise WireError("a header is not valid JSON: it is not UTF-8 text") from error
    fields = parse_json(text, "a header", WireError)
    if not isinstance(fields, dict):
        raise WireError("a header that is not a JSON object")
    return fields


def integer(fields: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """Return the whole number ``name`` of a header.

    Raises:
        WireError: it is missing, something else, or not from ``low`` to ``high``.
    """
    value = fields.get(name)
    if type(value) is not int or not low <= value <= high:
        raise WireError(f"{name} is {shown(value)}; it must be a whole number from {low} to {high}")
    return value


def number(fields: Mapping[str, Any], name: str) -> float:
    """Return the finite number ``name`` of a header.

    Raises:
        WireError: it is missing, something else, or not finite.
    """
    value = fields.get(name)
    try:
        finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        # JSON's whole numbers are of any size.
        finite = False
    if not finite:
        raise WireError(f"{name} is {shown(value)}; it must be a finite number")
    return float(cast("float", value))


def texts(fields: Mapping[str, Any], name: str, most: int) -> tuple[str, ...]:
    """Return the list of texts ``name`` of a header.

    Raises:
        WireError: it is missing, something else, or holds more than ``most``.
    """
    value = fields.get(name)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(text, str) for text in value):
        raise WireError(f"{name} is {shown(value)}; it must be a list of at most {most} texts")
    return tuple(value)


def joined(jobs: Sequence[Mapping[str, Tensor]]) -> Tensors:
    """Return the tensors of several jobs under names that tell the jobs apart."""
    return {f"{index}/{name}": tensor for index, tensors in enumerate(jobs) for name, tensor in tensors.items()}


def separated(tensors: Mapping[str, Tensor], jobs: int) -> list[Tensors]:
    """Return the tensors of each of ``jobs`` jobs.

    Raises:
        WireError: a tensor belongs to none.
    """
    parts: dict[str, Tensors] = {str(index): {} for index in range(jobs)}
    for name, tensor in tensors.items():
        index, slash, own = name.partition("/")
        if not slash or index not in parts:
            raise WireError(f"tensor {shown(name)} belongs to no job")
        parts[index][own] = tensor
    return list(parts.values())


def write_blob(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> int:
    """Write tensors as safetensors, floating values as ``dtype`` if one is given; return the bytes of the file."""
    safetensors.torch.save_file(_contiguous(tensors, dtype), path)
    return path.stat().st_size


def make_blob(tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> bytes:
    """Return tensors as the bytes that ``write_blob`` writes."""
    blob: bytes = safetensors.torch.save(_contiguous(tensors, dtype))
    return blob


def read_blob(path: Path, expected: Iterable[str]) -> Tensors:
    """Return the tensors of a file whose size was checked.

    Args:
        path: the file.
        expected: names of the tensors that were asked for, by which the file's header is bounded before it is read:
            names without values take many times their bytes in memory, and their time.

    Raises:
        WireError: it is not a safetensors file, or mostly header.
    """
    most = _ODD_BYTES + sum(len(json.dumps(name)) + _ENTRY_BYTES for name in expected)
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > most:
            raise ValueError(f"a header of {header:,} bytes; at most {most:,} are read")
        tensors: Tensors = safetensors.torch.load_file(path)
    except _UNREADABLE as error:
        raise WireError(f"a blob that is not safetensors ({error})") from error
    return tensors


def parse_blob(blob: bytes) -> Tensors:
    """Return the tensors of a blob.

    Raises:
        WireError: it is not safetensors.
    """
    try:
        tensors: Tensors = safetensors.torch.load(blob)
    except _UNREADABLE as error:
        raise WireError(f"a blob that is not safetensors ({error})") from error
    return tensors


def most_answer_bytes(kind: MessageKind, dtype: WireDtype, values: int) -> int:
    """Return the most bytes of an answer to a request whose jobs' tensors held ``values`` numbers in all."""
    # Statistics are float64, and fewer values than there are parameters.
    width = {"describe": 0, "train": TORCH_DTYPES[dtype].itemsize, "calibrate": 8, "evaluate": 0}[kind]
    return width * values + MOST_HEADER_BYTES + _BLOB_EXTRA


def _contiguous(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> Tensors:
    # Cloned: jobs may share tensors, and safetensors writes each once.
    return {
        name: tensor.detach().to("cpu", dtype).clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def one_line(text: str) -> str:
    """Return a client's words as one line that fits on a terminal and holds no control characters."""
    return "".join(character for character in text[:400] if character.isprintable())
