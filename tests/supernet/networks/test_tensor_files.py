from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.tensor_files import first_not_finite, is_finite, load_tensors, read_tensors

_SHAPES = {"b": (2, 3), "a": (4,)}


def _write(path: Path, **tensors: torch.Tensor) -> Path:
    save_file({"a": torch.arange(4.0), "b": torch.ones(2, 3), **tensors}, path)
    return path


def test_tensors_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    found = read_tensors(_write(tmp_path / "t.safetensors"), _SHAPES, "a network")
    assert list(found) == ["b", "a"]
    assert torch.equal(found["a"], torch.arange(4.0))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"c": torch.ones(1)}, "holds another network than a network"),
        ({"a": torch.ones(5)}, "holds another network than a network"),
        ({"a": torch.ones(4, dtype=torch.float64)}, "a holds torch.float64; it must hold torch.float32"),
        ({"b": torch.full((2, 3), float("nan"))}, "b holds a value that is not finite"),
        ({"a": torch.tensor([1.0, float("inf"), 0.0, 0.0])}, "a holds a value that is not finite"),
    ],
)
def test_other_tensors_are_named(tmp_path: Path, tensors: dict[str, torch.Tensor], words: str) -> None:
    path = _write(tmp_path / "t.safetensors", **tensors)
    with pytest.raises(UserError, match=words):
        read_tensors(path, _SHAPES, "a network")


def test_counters_are_no_floats(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.safetensors", a=torch.arange(4))
    assert read_tensors(path, _SHAPES, "a network", {"a": torch.int64})["a"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, b"\xff" * 8, b"\0" * 100, b"a" * 100, (2**40).to_bytes(8, "little")]
)
def test_what_is_no_such_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is cut short or no safetensors file") as caught:
        load_tensors(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        load_tensors(tmp_path / "t.safetensors")
    with pytest.raises(UserError, match="is no file"):
        load_tensors(tmp_path)


def test_a_sum_that_is_too_large_is_no_value_that_is() -> None:
    assert is_finite(torch.full((1000,), 3e38))
    assert not is_finite(torch.tensor([1.0, float("nan")]))
    assert is_finite(torch.arange(5))


def test_the_first_tensor_that_is_not_finite_is_named() -> None:
    huge = torch.full((2,), torch.finfo(torch.float32).max)
    assert first_not_finite({}) is None
    assert first_not_finite({"a": torch.ones(2), "b": torch.zeros(0)}) is None
    # Their sum is infinite, they are not.
    assert first_not_finite({"a": torch.ones(2), "b": huge}) is None
    spoiled = {"a": huge, "b": torch.tensor([1.0, float("nan")]), "c": torch.tensor(float("inf"))}
    assert first_not_finite(spoiled) == "b"
