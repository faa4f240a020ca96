"""The type of a run's configuration, with the settings of all methods that are registered."""

import dataclasses
import functools
from typing import Any, Literal

from fedpareto.training.config.methods.registry import BUILT_IN, METHODS
from fedpareto.training.config.methods.spec import MethodSpec
from fedpareto.training.config.run import RunConfig


def config_type() -> type[RunConfig]:
    """The dataclass that configurations are read as.

    Where others have registered methods it is a subclass of ``RunConfig`` with one more field for each that has
    settings, of the method's name, and with their names among those that ``method`` may have.
    """
    return _with_methods(tuple(spec for spec in METHODS.everything() if spec not in BUILT_IN))


@functools.lru_cache
def _with_methods(others: tuple[MethodSpec, ...]) -> type[RunConfig]:
    if not others:
        return RunConfig
    names = tuple(spec.name for spec in (*BUILT_IN, *others))
    groups = [
        (spec.name, spec.settings, dataclasses.field(default_factory=spec.settings))
        for spec in others
        if spec.settings is not None
    ]
    described = "".join(f"        {name}: the method {name}.\n" for name, _, _ in groups)
    fields: list[Any] = [("method", Literal[names], RunConfig.method), *groups]
    return dataclasses.make_dataclass(
        RunConfig.__name__,
        fields,
        bases=(RunConfig,),
        frozen=True,
        namespace={"__doc__": f"{(RunConfig.__doc__ or '').rstrip()}\n{described}    ", "__module__": __name__},
    )
