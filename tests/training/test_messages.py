import dataclasses
from collections.abc import Callable

import pytest
import torch
from helpers.networks.strategies import runs
from helpers.runs.federation import MICRO
from helpers.runs.simulation import micro_task, random_tensors, smallest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedpareto.supernet.networks.weights import Tensors, extract
from fedpareto.training.local_objective import Logits, PathSampling
from fedpareto.training.messages import FailureKind, Update, check_update, tensor_bytes

_WEIGHT = "stages.0.0.depthwise.conv.weight"
_BIAS = "head.classifier.linear.bias"


def _update(**fields: object) -> Update:
    task = micro_task(smallest(), client=3)
    good = Update(task, extract(MICRO, random_tensors(1), smallest()), 10, 1.5, 0.0, 0.1)
    return dataclasses.replace(good, **fields)  # type: ignore[arg-type]


def _nan(tensors: Tensors) -> None:
    tensors[_WEIGHT][3, 0, 1, 1] = float("nan")


def _infinite(tensors: Tensors) -> None:
    tensors[_BIAS][0] = float("-inf")


def _shape(tensors: Tensors) -> None:
    tensors[_WEIGHT] = torch.zeros(16, 1, 5, 5)


def _transposed(tensors: Tensors) -> None:
    tensors["head.hidden.linear.weight"] = torch.zeros(16, 16, 1)


def _dtype(tensors: Tensors) -> None:
    tensors[_BIAS] = tensors[_BIAS].double()


def _missing(tensors: Tensors) -> None:
    del tensors[_WEIGHT]


def _extra(tensors: Tensors) -> None:
    tensors["stages.0.1.depthwise.conv.weight"] = torch.zeros(1)


def test_a_good_update_passes() -> None:
    assert check_update(_update()) is None


def test_an_update_in_another_memory_layout_passes() -> None:
    tensors = {
        name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in _update().tensors.items()
    }
    assert check_update(_update(tensors=tensors)) is None


@pytest.mark.parametrize(
    ("spoil", "kind", "reason"),
    [
        (_nan, "non-finite", f"{_WEIGHT} holds NaN or infinity"),
        (_infinite, "non-finite", f"{_BIAS} holds NaN or infinity"),
        (_shape, "shape", f"{_WEIGHT} has shape (16, 1, 5, 5) instead of (16, 1, 3, 3)"),
        (_transposed, "shape", "head.hidden.linear.weight has shape (16, 16, 1) instead of (16, 16)"),
        (_dtype, "dtype", f"{_BIAS} has type torch.float64 instead of torch.float32"),
        (_missing, "names", f"tensor {_WEIGHT} is missing"),
        (_extra, "names", "tensor 'stages.0.1.d...e.conv.weight' was not asked for"),
    ],
)
def test_a_spoiled_tensor_is_a_failure_of_its_kind_that_names_it(
    spoil: Callable[[Tensors], None], kind: FailureKind, reason: str
) -> None:
    update = _update()
    tensors = dict(update.tensors)
    spoil(tensors)
    failure = check_update(dataclasses.replace(update, tensors=tensors))
    assert failure is not None
    assert (failure.kind, failure.reason) == (kind, reason)
    assert failure.task is update.task


@runs(60)
@given(data=st.data(), value=st.sampled_from([float("nan"), float("inf"), float("-inf")]), large=st.booleans())
def test_a_single_nan_or_infinity_is_found_wherever_it_is(data: st.DataObject, value: float, large: bool) -> None:
    update = _update()
    name = data.draw(st.sampled_from(sorted(update.tensors)))
    # Beside values whose sum overflows by itself it is found too.
    tensors = {name: _alternating(tensor) for name, tensor in update.tensors.items()} if large else update.tensors
    spoiled = tensors[name].clone()
    spoiled.view(-1)[data.draw(st.integers(0, spoiled.numel() - 1))] = value
    failure = check_update(dataclasses.replace(update, tensors={**tensors, name: spoiled}))
    assert failure is not None
    assert (failure.kind, failure.reason) == ("non-finite", f"{name} holds NaN or infinity")


def _alternating(tensor: Tensor) -> Tensor:
    """Return values of 3e38 in halves of either sign: their partial sums overflow both ways."""
    values = torch.full((tensor.numel(),), 3e38)
    values[tensor.numel() // 2 :] = -3e38
    return values.view(tensor.shape)


def _positive(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, 3e38)


@pytest.mark.parametrize("make", [_positive, _alternating])
def test_finite_values_whose_sum_overflows_pass(make: Callable[[Tensor], Tensor]) -> None:
    tensors = {name: make(tensor) for name, tensor in _update().tensors.items()}
    assert not all(tensor.sum().isfinite() for tensor in map(_positive, tensors.values()))
    assert check_update(_update(tensors=tensors)) is None


def test_infinities_that_cancel_out_are_found() -> None:
    tensors = dict(_update().tensors)
    tensors[_BIAS] = torch.tensor([float("inf"), float("-inf")] * (len(tensors[_BIAS]) // 2))
    failure = check_update(_update(tensors=tensors))
    assert failure is not None
    assert failure.kind == "non-finite"


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({"examples": 0}, "examples", "it reports 0 examples"),
        ({"examples": -5}, "examples", "it reports -5 examples"),
        ({"loss": float("nan")}, "non-finite", "its training loss is nan"),
        ({"loss": float("inf")}, "non-finite", "its training loss is inf"),
    ],
)
def test_a_spoiled_number_is_a_failure_of_its_kind(fields: dict[str, object], kind: FailureKind, reason: str) -> None:
    failure = check_update(_update(**fields))
    assert failure is not None
    assert (failure.kind, failure.reason) == (kind, reason)


def test_the_bytes_of_tensors_are_those_of_their_values() -> None:
    assert tensor_bytes({"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.float64)}) == 3 * 5 * 4 + 7 * 8
    # A view counts what it shows, not the memory behind it.
    assert tensor_bytes({"a": torch.zeros(10, 10)[:2, :3]}) == 2 * 3 * 4


_LOGITS: Logits = ((0.5, -1.0), None, (0.0, 1.0, 2.0))


def _sampled(logits: Logits | None) -> Update:
    """Return an update whose client was asked to move logits, with those it sends."""
    update = _update(logits=logits)
    return dataclasses.replace(update, task=dataclasses.replace(update.task, objective=PathSampling(_LOGITS, 0.01)))


def test_an_update_with_the_logits_asked_for_passes() -> None:
    assert check_update(_sampled(_LOGITS)) is None
    assert check_update(_sampled(((1e300, -1e300), None, (7.0, 0.0, -0.0)))) is None


@pytest.mark.parametrize(
    ("logits", "kind"),
    [
        (None, "shape"),
        ((), "shape"),
        (_LOGITS[:2], "shape"),
        ((*_LOGITS, (1.0,)), "shape"),
        (((0.5,), *_LOGITS[1:]), "shape"),
        ((None, *_LOGITS[1:]), "shape"),
        ((_LOGITS[0], (0.0,), _LOGITS[2]), "shape"),
        (((0.5, float("nan")), *_LOGITS[1:]), "non-finite"),
        ((*_LOGITS[:2], (float("-inf"), 1.0, 2.0)), "non-finite"),
    ],
    ids=str,
)
def test_logits_that_cannot_be_averaged_are_refused(logits: Logits | None, kind: FailureKind) -> None:
    failure = check_update(_sampled(logits))
    assert failure is not None
    assert failure.kind == kind
    assert "logits" in failure.reason


def test_logits_nobody_asked_for_are_refused() -> None:
    failure = check_update(_update(logits=_LOGITS))
    assert failure is not None
    assert failure.kind == "shape"
