"""The examples in docstrings run as they are printed."""

import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import fedpareto as fp
from fedpareto.training.config.methods.registry import METHODS
from fedpareto.training.config.registries import AGGREGATORS, DATA_SETS, SAMPLERS, TRACKERS

#: Modules whose docstrings hold examples: the package itself, and where its public names are defined.
_MODULES = sorted({"fedpareto", *(f"fedpareto.{path}" for path in fp._MODULES.values())})


def _examples(module: ModuleType) -> list[doctest.DocTest]:
    return [found for found in doctest.DocTestFinder(exclude_empty=True).find(module) if found.examples]


@pytest.fixture
def registered_here() -> Iterator[None]:
    """What an example registers is gone after it."""
    registries = (METHODS, SAMPLERS, DATA_SETS, TRACKERS, AGGREGATORS)
    before = [registry.others() for registry in registries]
    yield
    for registry, names in zip(registries, before, strict=True):
        for name in set(registry.others()) - set(names):
            registry.remove(name)


#: Train, or measure, for seconds.
_LONG = {
    "fedpareto.search.comparison.compare",
    "fedpareto.search.profiling.device_profile",
    "fedpareto.search.ranking.validate",
    "fedpareto.search.api",
    "fedpareto.search.subnet",
}


@pytest.mark.usefixtures("registered_here")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in _LONG else []) for name in _MODULES]
)
def test_examples_run_as_they_are_printed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    module = importlib.import_module(name)
    for example in _examples(module):
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        printed: list[str] = []
        runner.run(example, out=printed.append)
        assert runner.failures == 0, "".join(printed)


def test_every_public_function_and_class_of_data_has_an_example() -> None:
    functions = [name for name in fp.__all__ if name[0].islower()]
    lacking = [name for name in [*functions, "ImageData"] if ">>>" not in (getattr(fp, name).__doc__ or "")]
    assert not lacking
