"""Registry of training methods by name: the built-in ones, and those that users register."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from fedpareto.supernet.common.errors import UserError, unknown_name
from fedpareto.supernet.common.extensions import short
from fedpareto.supernet.common.registry import Registry
from fedpareto.training.config.methods.cotrain import COTRAIN
from fedpareto.training.config.methods.decnas import DECNAS
from fedpareto.training.config.methods.deepfednas import DEEPFEDNAS
from fedpareto.training.config.methods.dfnas import DFNAS
from fedpareto.training.config.methods.fedavg import FEDAVG
from fedpareto.training.config.methods.fedpareto import FEDPARETO
from fedpareto.training.config.methods.spec import MethodSpec
from fedpareto.training.config.methods.superfednas import SUPERFEDNAS

#: The methods of this package, in the order of help.
BUILT_IN: tuple[MethodSpec, ...] = (FEDPARETO, DEEPFEDNAS, SUPERFEDNAS, FEDAVG, COTRAIN, DFNAS, DECNAS)

if TYPE_CHECKING:
    # Others register more of them.
    MethodName = str
else:
    MethodName = Literal[tuple(spec.name for spec in BUILT_IN)]

#: A factory of methods: takes a ``MethodContext`` and returns a ``Method``.
F = TypeVar("F", bound=Callable[..., Any])


def _checked(name: str, thing: Any) -> MethodSpec:
    """Method that an entry point refers to: a ``MethodSpec``, or a function that registers one when it is called.

    Raises:
        UserError: it is neither, or has another name.
    """
    if callable(thing):
        thing()
        thing = METHODS.get(name)
    if not isinstance(thing, MethodSpec) or thing.name != name:
        raise UserError(f"it is {thing!r}, and must be the MethodSpec of {name}, or register it when it is called")
    check_free(name)
    return thing


METHODS: Registry[MethodSpec] = Registry(
    "method",
    "fedpareto.methods",
    {spec.name: spec for spec in BUILT_IN},
    _checked,
    lambda thing: None if isinstance(thing, MethodSpec) else f"it is {short(thing)}; it must be a MethodSpec",
)


@overload
def register_method(name: MethodSpec) -> MethodSpec: ...


@overload
def register_method(
    name: str, settings: type | None = None, *, summary: str | None = None, **attributes: Any
) -> Callable[[F], F]: ...


def register_method(
    name: str | MethodSpec, settings: type | None = None, *, summary: str | None = None, **attributes: Any
) -> Any:
    """Add a training method, for as long as this process runs.

    It takes a whole ``MethodSpec``, or decorates the factory of a method::

        @register_method("toy", ToySettings, summary="every client has the smallest network")
        def toy(context: MethodContext) -> Method: ...

    Args:
        name: name of the method, or its whole ``MethodSpec``.
        settings: frozen dataclass of its settings, the group ``--NAME.setting``; every field has a default.
        summary: its description in ``--help``; the first line of the factory's docstring when left out.
        attributes: any other attributes of ``MethodSpec``.

    Raises:
        UserError: another method or a group of settings has the name, the settings are no such dataclass, or an
            attribute is of another kind than it must be.

    >>> import fedpareto as fp
    >>> from fedpareto.training.methods.superfednas import superfednas
    >>> @fp.register_method("mine", summary="as superfednas, for now", also_reads=("server.largest_weight",))
    ... def mine(context):
    ...     return superfednas(context)
    """
    if isinstance(name, MethodSpec):
        check_free(name.name)
        METHODS.register(name.name, name)
        return name
    if not isinstance(name, str):
        raise UserError(f"a method is called {short(name)}; give its name, or its whole MethodSpec")
    own = ("name", "summary", "factory", "settings")
    known = [field.name for field in dataclasses.fields(MethodSpec) if field.name not in own]
    for attribute in attributes:
        if attribute not in known:
            raise UserError(f"method {name}: {unknown_name('attribute', attribute, known)}")

    def registered(factory: F) -> F:
        words = summary or (getattr(factory, "__doc__", None) or "").strip().partition("\n")[0].rstrip(".")
        register_method(MethodSpec(name, words, factory, settings, **attributes))
        return factory

    return registered


def check_free(name: str) -> None:
    """Refuse a method's name that the configuration uses for something else.

    Raises:
        UserError: the name is taken; the message names it.
    """
    from fedpareto.training.config.run import RunConfig  # noqa: PLC0415 - which has the built-in methods' settings

    taken = {field.name for field in dataclasses.fields(RunConfig)} | {"config", "resume", "help", *dir(RunConfig)}
    if name in taken - {spec.name for spec in BUILT_IN}:
        raise UserError(f"a method is called {name!r}, as is an option of train-supernet; give it another name")
