"""Ranges of settings: what holds them, what is said of them, and that every number of a configuration has one."""

import dataclasses
import math
import typing
from typing import Any

import pytest

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.bounds import Bound, bounded, bounds_of, check_bounds
from fedpareto.training.config.partition import PartitionConfig, PartitionError
from fedpareto.training.config.run import RunConfig

#: Numbers whose ranges depend on something else: on the data set, on other settings, or on whoever reads them.
_ELSEWHERE = {
    *("clients.count", "clients.per_round", "decnas.most_rounds"),
    *("data.validation", "data.crop", "data.cutout"),
}


def _groups() -> list[tuple[str, Any]]:
    config = RunConfig()
    named = [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]
    return [("", config), *((name, group) for name, group in named if dataclasses.is_dataclass(group))]


_BOUNDS = [(group, name, bound) for group, value in _groups() for name, bound in bounds_of(value).items()]


def test_every_number_of_a_configuration_has_a_range() -> None:
    numbers = {
        f"{group and f'{group}.'}{name}"
        for group, value in _groups()
        for name, hint in typing.get_type_hints(type(value)).items()
        if {int, float} & {hint, *typing.get_args(hint)}
    }
    assert numbers - _ELSEWHERE == {f"{group and f'{group}.'}{name}" for group, name, _ in _BOUNDS}


@pytest.mark.parametrize(("group", "name", "bound"), _BOUNDS, ids=[f"{group}.{name}" for group, name, _ in _BOUNDS])
def test_a_value_beyond_an_end_is_refused_with_the_range_and_the_end_is_not(
    group: str, name: str, bound: Bound
) -> None:
    settings = dict(_groups())[group]
    whole = int in {
        typing.get_type_hints(type(settings))[name],
        *typing.get_args(typing.get_type_hints(type(settings))[name]),
    }

    def near(end: float, way: int) -> float:
        return int(end) + way if whole else math.nextafter(end, way * math.inf)

    outside = [
        bound.above,
        bound.below,
        *(near(end, way) for end, way in ((bound.least, -1), (bound.most, 1)) if end is not None),
    ]
    for value in (value for value in outside if value is not None):
        with pytest.raises(UserError) as caught:
            dataclasses.replace(settings, **{name: value})
        assert str(caught.value) == f"{group and f'{group}.'}{name} is {value}; it must {bound}"
    for end in (bound.least, bound.most):
        assert end is None or bound.holds(end)


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (Bound(least=0), "not be negative"),
        (Bound(least=2), "be at least 2"),
        (Bound(above=0), "be positive"),
        (Bound(above=3), "be above 3"),
        (Bound(above=0, below=math.inf, hint=" and finite, in seconds"), "be positive and finite, in seconds"),
        (Bound(least=0, below=math.inf, hint=" (0 for none)"), "not be negative (0 for none)"),
        (Bound(least=-10, most=10), "be from -10 to 10"),
        (Bound(least=0, below=1), "be from 0 to below 1"),
        (Bound(above=0, below=1), "be between 0 and 1"),
        (Bound(above=0, most=1), "be above 0 and at most 1"),
    ],
    ids=str,
)
def test_a_range_is_said_in_words(bound: Bound, words: str) -> None:
    assert str(bound) == words
    assert not bound.holds(math.nan)


def test_nothing_is_said_of_a_value_that_is_left_out_and_another_error_is_raised_if_asked_for() -> None:
    @dataclasses.dataclass(frozen=True)
    class Some:
        size: int | None = bounded(None, least=2)

    check_bounds(Some(), "some")
    with pytest.raises(PartitionError, match=r"^some\.size is 1; it must be at least 2$"):
        check_bounds(Some(1), "some", PartitionError)
    with pytest.raises(PartitionError):
        PartitionConfig(alpha=0.0)


@pytest.mark.parametrize("ends", [{}, {"least": 0, "above": 0}, {"least": 0, "most": 1, "below": 1}, {"most": 1}])
def test_a_range_without_a_lower_end_or_with_two_ends_of_a_kind_is_a_mistake(ends: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one lower end"):
        bounded(0.5, **ends)
