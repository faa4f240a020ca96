"""Parts of somebody else that are none, fail, or return what they must not: one line, and the run can go on."""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks.strategies import runs
from helpers.runs.federation import MICRO
from helpers.runs.quick import QUICK
from helpers.runs.simulation import random_tensors
from hypothesis import example, given
from hypothesis import strategies as st

import fedpareto as fp
from fedpareto.supernet.common.extensions import blamed, not_taking
from fedpareto.supernet.common.registry import Registry
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.training.aggregation.protocol import new_aggregator
from fedpareto.training.aggregation.weighted_average import ServerStep, WeightedAverage
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.methods import MethodSpec
from fedpareto.training.config.methods.registry import METHODS
from fedpareto.training.config.registries import AGGREGATORS, DATA_SETS, SAMPLERS, TRACKERS
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.files.reading import Arrays
from fedpareto.training.data.sources import DIGITS, Source, list_images, source
from fedpareto.training.methods.sampling import drawn_clients
from fedpareto.training.runs.state import Counts, RunState
from fedpareto.training.trackers.callbacks import FunctionTracker
from fedpareto.training.trackers.protocol import TrackerContext, new_tracker

#: The functions as somebody calls them who has no type checker.
_LOOSE: Any = fp

#: What is no function, class, source or specification.
_ODD: tuple[Any, ...] = (3, None, "text", "a:", "no module:name", [], {}, object(), np.zeros(3), float("nan"))


def _name(value: object) -> str:
    """Name of a case that is the same in every process: no address of an object in it."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@contextlib.contextmanager
def _registered(registry: Registry[Any], thing: Any) -> Iterator[None]:
    registry.register("mine", thing)
    try:
        yield
    finally:
        registry.remove("mine")


def _refused(call: Callable[[], object], *words: str) -> str:
    with pytest.raises(fp.UserError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    assert all(word in line for word in words), line
    return line


@pytest.mark.parametrize("odd", _ODD, ids=lambda odd: type(odd).__name__)
def test_what_is_no_part_is_refused_when_it_is_registered(odd: Any) -> None:
    before = [registry.names() for registry in (SAMPLERS, TRACKERS, AGGREGATORS, DATA_SETS, METHODS)]
    _refused(lambda: _LOOSE.register_sampler("mine")(odd), "'mine' is no client sampler: it is ")
    _refused(lambda: _LOOSE.register_tracker("mine")(odd), "'mine' is no tracker: it is ")
    _refused(lambda: _LOOSE.register_aggregator("mine")(odd), "'mine' is no aggregator: it is ")
    _refused(lambda: _LOOSE.register_data_source("mine", odd), "'mine' is no data set: it is ", "it must be a Source")
    _refused(lambda: _LOOSE.register_method("mine", summary="none")(odd), "method mine: factory: it is ")
    for register in (_LOOSE.register_sampler, _LOOSE.register_tracker, _LOOSE.register_aggregator):
        # As a decorator without its name.
        _refused(functools.partial(register, print), " is called <built-in function print>; its name must")
    if not isinstance(odd, str):
        _refused(lambda: _LOOSE.register_method(odd), "a method is called ")
        _refused(lambda: _LOOSE.register_data_source(odd, DIGITS), "a data set is called ")
    assert [registry.names() for registry in (SAMPLERS, TRACKERS, AGGREGATORS, DATA_SETS, METHODS)] == before


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        *(({"factory": odd}, "factory: it is ") for odd in _ODD[:3]),
        ({"factory": lambda: None}, "factory: its parameters are ()"),
        *(({name: 3}, f"{name}: it is 3; it must be a function") for name in ("check", "length", "report", "normal")),
        ({"summary": 3}, "summary is 3; it must be of type str"),
        ({"private": "yes"}, "private is 'yes'; it must be of type bool"),
        ({"defaults": [1]}, "defaults is [1]; it must be of type Mapping"),
        ({"also_reads": "server.largest_weight"}, "also_reads is 'server.largest_weight'; it must be of type tuple"),
        ({"settings": 3}, "the settings of method mine are 3"),
        ({"settings": DIGITS}, "the settings of method mine are Source("),
        ({"sumary": "all"}, "unknown attribute 'sumary'"),
    ],
    ids=_name,
)
def test_a_method_of_odd_attributes_is_refused(fields: Mapping[str, Any], words: str) -> None:
    given = {"summary": "nothing", "factory": print, **fields}
    factory = given.pop("factory")
    _refused(lambda: _LOOSE.register_method("mine", **given)(factory), "mine", words)
    if "sumary" not in fields:
        _refused(lambda: MethodSpec(**{"name": "mine", "factory": factory, **given}), "mine", words)


@pytest.mark.parametrize(
    ("thing", "fault"),
    [
        (lambda a, b: None, None),
        (lambda *all_of_them: None, None),
        (print, None),
        (WeightedAverage, None),
        (lambda a: None, "too many positional arguments"),
        (lambda a, b, c: None, "missing a required argument: 'c'"),
        (lambda a, *, b: None, "too many positional"),
    ],
)
def test_a_function_of_other_parameters_is_told_from_one_that_fits(thing: object, fault: str | None) -> None:
    found = not_taking("space", "tensors")(thing)
    assert (found is None) == (fault is None)
    if fault is not None:
        assert found is not None
        assert fault in found
        assert "takes (space, tensors)" in found


def test_of_an_entry_point_the_same_is_asked_when_it_is_loaded() -> None:
    registry: Registry[Any] = Registry("colour", "tests.colours", {"pi": "math:pi"}, fault=not_taking("light"))
    _refused(lambda: registry.get("pi"), "the colour 'pi' of math:pi cannot be loaded (it is 3.14", "takes (light)")


_STATE = RunState(round=0, counts=Counts.zero(6), trained=(0,), wandb_id="x")
_SAMPLED = RunConfig(clients=ClientsConfig(count=6, per_round=3, sampler="mine"))
_NUMBERS = st.one_of(st.integers(-9, 9), st.floats(), st.booleans(), st.none(), st.text(max_size=2), st.binary())


@runs(60)
@example([0, 2, 3, 5])
@example([0, 2])
@example([0, 2, 2])
@example([0, 2, 2, 3])
@example([0, 2, 4])
@example([5, 3, 0])
@given(st.one_of(st.lists(_NUMBERS, max_size=5), _NUMBERS, st.dictionaries(st.integers(0, 5), st.none(), max_size=3)))
def test_only_distinct_clients_that_are_there_are_drawn(returned: Any) -> None:
    available = [0, 2, 3, 5]
    good = (
        isinstance(returned, list)
        and all(type(each) is int and each in available for each in returned)
        and len(set(returned)) == len(returned) == 3
    )
    with _registered(SAMPLERS, lambda available, per_round, generator, state: returned):
        if good:
            assert drawn_clients(_SAMPLED, _STATE, available) == returned
        else:
            _refused(
                lambda: drawn_clients(_SAMPLED, _STATE, available),
                "the client sampler mine drew ",
                "distinct clients, 3 of [0, 2, 3, 5]",
            )


@pytest.mark.parametrize(
    "returned", [np.array([5, 0, 3]), (5, 0, 3), [np.int32(5), 0, np.uint8(3)], torch.tensor([5, 0, 3])], ids=_name
)
def test_numbers_of_libraries_are_drawn_too(returned: Any) -> None:
    with _registered(SAMPLERS, lambda available, per_round, generator, state: available.clear() or returned):
        available = [0, 2, 3, 5]
        assert drawn_clients(_SAMPLED, _STATE, available) == [5, 0, 3]
        assert available == [0, 2, 3, 5]
        # All that there are, where that is fewer.
        _refused(lambda: drawn_clients(_SAMPLED, _STATE, [0, 5]), "it must draw distinct clients, 2 of [0, 5]")


@pytest.mark.parametrize(
    "error", [ValueError("no\nline"), SystemExit(3), KeyError("k"), fp.UserError("mine")], ids=repr
)
def test_what_a_part_raises_names_it(error: BaseException) -> None:
    def failing(*arguments: object) -> Any:
        raise error

    own = isinstance(error, fp.UserError)
    with _registered(SAMPLERS, failing):
        _refused(
            lambda: drawn_clients(_SAMPLED, _STATE, [0, 1, 2]), "mine" if own else "the client sampler mine failed"
        )
    with _registered(AGGREGATORS, failing):
        _refused(_aggregator, "mine" if own else "the aggregator mine failed: ")
    with _registered(TRACKERS, failing):
        _refused(lambda: new_tracker("mine", _CONTEXT), "mine" if own else "tracker 'mine' failed: ")
    with _registered(DATA_SETS, dataclasses.replace(DIGITS, listing=failing)):
        _refused(lambda: list_images("mine", ".", "train"), "mine" if own else "the data set mine failed: ")
    with pytest.raises(KeyboardInterrupt), blamed("it"):
        raise KeyboardInterrupt


_CONTEXT = TrackerContext(Path("run"), RunConfig(), 0)


def _aggregator() -> Any:
    config = RunConfig(server=ServerConfig(aggregation="mine"))
    return new_aggregator(config, MICRO, random_tensors())


@pytest.mark.parametrize("made", [None, 3, object(), WeightedAverage], ids=_name)
def test_what_is_made_as_no_aggregator_and_no_tracker_is_refused(made: object) -> None:
    if made is not WeightedAverage:
        with _registered(AGGREGATORS, lambda space, tensors: made):
            _refused(_aggregator, "the aggregator mine is made as ", "has no method add")
    with _registered(TRACKERS, lambda context: made):
        _refused(lambda: new_tracker("mine", _CONTEXT), "tracker 'mine' of type ", "has no method client_done")


def _first(tensors: Mapping[str, Any]) -> str:
    return next(iter(tensors))


def _spoil_one(tensors: dict[str, Any], value: Callable[[torch.Tensor], Any]) -> None:
    tensors[_first(tensors)] = value(tensors[_first(tensors)])


#: What an aggregator may do to tensors that the next round cannot go on with, and the words for it.
_SPOILS: Mapping[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "nan": (lambda tensors: _spoil_one(tensors, lambda tensor: tensor * float("nan")), "holds NaN or infinity"),
    "infinite": (lambda tensors: _spoil_one(tensors, lambda tensor: tensor / 0), "NaN or infinity"),
    "missing": (lambda tensors: tensors.__delitem__(_first(tensors)), "is missing"),
    "new": (lambda tensors: tensors.update(mine=torch.zeros(1)), "'mine' is new"),
    "nothing": (lambda tensors: tensors.clear(), "is missing"),
    "shape": (lambda tensors: _spoil_one(tensors, lambda tensor: tensor[:1]), "instead of torch.float32"),
    "dtype": (lambda tensors: _spoil_one(tensors, lambda tensor: tensor.double()), "is torch.float64"),
    "array": (lambda tensors: _spoil_one(tensors, lambda tensor: tensor.numpy()), "is array("),
    "none": (lambda tensors: _spoil_one(tensors, lambda tensor: None), "is None instead of"),
    "returned": (dict, "from write_mean; it must move the tensors in place"),
}


class Spoiling(WeightedAverage):
    """Average that does something else to the tensors, or to the velocity, afterwards."""

    spoil: Callable[[dict[str, Any]], object]
    of_velocity = False

    def write_mean(self, tensors: Any, velocity: Any = None, server: ServerStep = ServerStep()) -> Any:  # noqa: B008
        super().write_mean(tensors, velocity, server)
        return type(self).spoil(velocity if self.of_velocity else tensors)


@pytest.mark.parametrize("of_velocity", [False, True])
@pytest.mark.parametrize("spoil", _SPOILS)
def test_tensors_that_no_round_could_go_on_with_are_refused(spoil: str, *, of_velocity: bool) -> None:
    change, words = _SPOILS[spoil]
    factory = type("Mine", (Spoiling,), {"spoil": staticmethod(change), "of_velocity": of_velocity})
    with _registered(AGGREGATORS, factory):
        tensors, velocity = random_tensors(), random_tensors(seed=1)
        _refused(lambda: _aggregator().write_mean(tensors, velocity), "the aggregator mine ", words)
    with _registered(AGGREGATORS, type("Good", (Spoiling,), {"spoil": staticmethod(lambda tensors: None)})):
        _aggregator().write_mean(random_tensors(), random_tensors(seed=1))


_PIXELS = np.zeros((8, 4, 4, 1), dtype=np.uint8)
_GOOD = Listing(torch.arange(8) % 2, ("a", "b"), Arrays("mine", _PIXELS))


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        *((odd, "it must return a Listing") for odd in _ODD),
        ({"labels": np.arange(8)}, "labels array("),
        ({"labels": torch.zeros(8)}, "labels torch.float32 of shape (8,)"),
        ({"labels": torch.zeros(8, 1, dtype=torch.int64)}, "labels torch.int64 of shape (8, 1)"),
        ({"labels": torch.arange(7) % 2}, "8 pictures and 7 labels"),
        ({"labels": torch.arange(8)}, "the label 7; there are 2 classes"),
        ({"labels": torch.arange(8) - 1}, "the label -1"),
        ({"labels": torch.zeros(0, dtype=torch.int64)}, "no images"),
        ({"classes": ["a", "b"]}, "classes ['a', 'b']; they must be a tuple"),
        ({"classes": ("a", 3)}, "a tuple of names"),
        ({"classes": ("a", "a")}, "every name may stand there once"),
        ({"pictures": None}, "pictures None, which have no method subset"),
        ({"held_out": 8}, "held_out 8 of 8 images"),
        ({"held_out": None}, "held_out None"),
        ({"clients": torch.zeros(7, dtype=torch.int64)}, "7 clients for 8 images"),
        ({"clients": [0] * 8}, "clients [0, 0"),
    ],
    ids=_name,
)
def test_a_listing_that_no_run_could_use_is_refused(returned: Any, words: str) -> None:
    changed = isinstance(returned, dict) and returned
    listing = dataclasses.replace(_GOOD, **returned) if changed else returned
    with _registered(DATA_SETS, Source(lambda root, split, download, listener: listing, DIGITS.augmentation)):
        _refused(lambda: list_images("mine", ".", "train"), "the data set mine: listing returned ", words)
    with _registered(DATA_SETS, Source(lambda root, split, download, listener: _GOOD, DIGITS.augmentation)):
        assert list_images("mine", ".", "train", listener=SILENT) is _GOOD


def test_other_parts_of_a_source_are_held_to_what_they_promise() -> None:
    odd: Any = Source(DIGITS.listing, lambda side: {"crop": 1}, validation=lambda root: "val")  # type: ignore[arg-type, return-value]
    with _registered(DATA_SETS, odd):
        _refused(lambda: source("mine").augmentation(8), "the data set mine: augmentation returned {'crop': 1}")
        _refused(lambda: source("mine").validation(Path()), "the data set mine: validation returned 'val'")
    for changes, words in (
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": None}, "batch_size is None"),
        ({"listing": lambda root: None}, "listing: its parameters are (root)"),
        ({"augmentation": None}, "augmentation: it is None"),
    ):
        broken: Any = dataclasses.replace(DIGITS, **changes)
        _refused(functools.partial(fp.register_data_source, "mine", broken), "'mine' is no data set: ", words)


def _bytes(folder: Path) -> bytes:
    return (sorted(folder.glob("checkpoints/*"))[-1] / "supernet.safetensors").read_bytes()


@pytest.mark.parametrize("part", ["sampler", "aggregator", "tracker"])
def test_a_run_that_a_part_ends_goes_on_once_that_is_mended(part: str, tmp_path: Path) -> None:
    broken = True

    def sampler(available: Sequence[int], per_round: int, generator: np.random.Generator, state: RunState) -> Any:
        return None if broken and state.round == 1 else list(available)[:per_round]

    rounds: list[int] = []

    class Aggregator(WeightedAverage):
        def write_mean(self, tensors: Any, velocity: Any = None, server: ServerStep = ServerStep()) -> None:  # noqa: B008
            super().write_mean(tensors, velocity, server)
            rounds.append(1)
            if broken and len(rounds) == 2:
                _spoil_one(tensors, lambda tensor: tensor * float("nan"))

    def tracker(context: TrackerContext) -> FunctionTracker:
        return FunctionTracker(lambda record: 1 // (record.round - 2) if broken else None)

    parts = {"sampler": (SAMPLERS, sampler), "aggregator": (AGGREGATORS, Aggregator), "tracker": (TRACKERS, tracker)}
    setting = {"sampler": "clients_sampler", "aggregator": "server_aggregation", "tracker": "tracking_also"}[part]
    named = ["mine"] if part == "tracker" else "mine"
    given = {**QUICK, "clients_count": 4, "rounds": 2, setting: named}
    registry, thing = parts[part]
    with _registered(registry, thing):
        _refused(lambda: fp.train(data="digits", output=tmp_path / "run", **given), "mine")
        assert max(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == "round-000001"
        assert fp.open_run(tmp_path / "run").find(macs="1M", progress=False).certified
        broken = False
        assert fp.train(resume=tmp_path / "run", progress=False).finished
        fp.train(data="digits", output=tmp_path / "whole", **given)
    assert _bytes(tmp_path / "run") == _bytes(tmp_path / "whole")
