"""Things that are chosen by name: those of this package, those that a program registers, and those of other packages.

Another package adds one by an entry point, whose name is the name it is chosen by::

    [project.entry-points."fedpareto.samplers"]
    longest-waiting = "my_package.samplers:longest_waiting"

Entry points are looked for when a name is asked for that is not known otherwise, or when all names are listed; what
one refers to is imported when it is used.
"""

import dataclasses
import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from fedpareto.supernet.common.errors import UserError, unknown_name
from fedpareto.supernet.common.extensions import Fault, short, told
from fedpareto.supernet.common.terminal.console import stderr

T = TypeVar("T")
A = TypeVar("A")

#: What an option of a command, or a file, can name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

#: What a thing can be named by, to be imported when it is used.
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def resolved(reference: Any) -> Any:
    """The thing itself: of text ``module:name`` what it refers to, of all else what is given.

    Raises:
        ImportError: the module cannot be imported.
        AttributeError: it has nothing of that name.
    """
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def is_reference(value: object) -> bool:
    """Return True for text ``module:name``."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


@dataclasses.dataclass(frozen=True)
class _Unloaded:
    """A thing that is imported when it is used.

    Attributes:
        reference: to it, ``module:name``.
        distribution: whose entry point refers to it; None of a reference of this program's own.
    """

    reference: str
    distribution: str | None = None

    @property
    def module(self) -> str:
        """The module that has it."""
        return self.reference.partition(":")[0]

    @property
    def owner(self) -> str:
        """Whose it is, to go on after its name."""
        return self.reference if self.distribution is None else self.distribution


class Registry(Generic[T]):
    """Things of one kind by name.

    Args:
        kind: what they are called in errors, such as ``client sampler``.
        group: of the entry points of other packages.
        built_in: those of this package, as they are or as text ``module:name``.
        checked: makes what an entry point of a name refers to into a thing of the kind, or raises ``UserError``.
        fault: says what is wrong with what is to be one of them; None if nothing is.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        built_in: Mapping[str, T | str] | None = None,
        checked: Callable[[str, Any], T] | None = None,
        fault: Fault = lambda thing: None,
    ) -> None:
        self.kind, self.group = kind, group
        self._checked, self._fault = checked, fault
        self._built_in = tuple(built_in or ())
        self._known: dict[str, T | _Unloaded] = {name: _stored(thing) for name, thing in (built_in or {}).items()}
        self._broken: dict[str, str] = {}
        # Those whose modules are being imported, which may register them.
        self._loading: set[str] = set()
        self._searched = False

    def register(self, name: str, thing: T | str) -> None:
        """Add a thing, for as long as this process runs; the same once more changes nothing.

        Raises:
            UserError: another one has that name, it is no name, or the thing is none of the kind.
        """
        self._check_name(name)
        if isinstance(thing, str):
            fault = None if is_reference(thing) else f"it is {short(thing)}; text must be module:name"
        else:
            fault = self._fault(thing)
        if fault is not None:
            raise UserError(f"{name!r} is no {self.kind}: {fault}")
        stored = _stored(thing)
        if name in self._loading:
            self._loading.discard(name)
            self._known[name] = stored
            return
        known = self._known.setdefault(name, stored)
        if known is not stored and known != stored:
            raise UserError(f"there is another {self.kind} {name!r}; give yours another name")

    def registering(self, name: str) -> Callable[[A], A]:
        """Decorator that registers what it is put on, and leaves it as it is.

        Raises:
            UserError: it is no name; the decorator itself raises what ``register`` does.
        """
        self._check_name(name)

        def registered(thing: A) -> A:
            self.register(name, cast("T", thing))
            return thing

        return registered

    def remove(self, name: str) -> None:
        """Take away what was registered under a name."""
        del self._known[name]

    def names(self) -> tuple[str, ...]:
        """All names: the built-in ones first, in their order."""
        self._search()
        return tuple(self._known)

    def others(self) -> tuple[str, ...]:
        """Names of those that are not built in."""
        return tuple(name for name in self.names() if name not in self._built_in)

    def check(self, name: str) -> None:
        """Refuse a name that there is not; what has it is not imported.

        Raises:
            UserError: naming the nearest that there is.
        """
        if name not in self._known:
            self._search()
        if name in self._broken:
            raise UserError(self._broken[name])
        if name not in self._known:
            raise UserError(
                f"{unknown_name(self.kind, name, self._known)}; correct the name, or install the package that brings it"
            )

    def get(self, name: str) -> T:
        """The thing of a name.

        Raises:
            UserError: there is none, or it cannot be imported; it names the distribution that it is of.
        """
        self.check(name)
        known = self._known[name]
        return self._loaded(name, known) if isinstance(known, _Unloaded) else known

    def everything(self) -> Iterator[T]:
        """Everything that can be used; of what cannot standard error tells, once."""
        for name in self.names():
            try:
                yield self.get(name)
            except UserError as error:
                stderr.print(f"{error}; it is left out")

    def brought(self, name: str) -> bool:
        """Return True if the thing of a name is somebody else's."""
        return name not in self._built_in

    def _check_name(self, name: object) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(f"a {self.kind} is called {short(name)}; its name must be letters, digits, -, _ and .")

    def _search(self) -> None:
        """Look for the entry points of installed packages, once."""
        if self._searched:
            return
        self._searched = True
        for entry in _installed(tuple(sys.path)).select(group=self.group):
            found = _Unloaded(entry.value, _distribution(entry))
            known = self._known.setdefault(entry.name, found)
            # A package may lie in two places of the path, and one that was imported before has registered its own.
            if known == found or (not isinstance(known, _Unloaded) and found.module in sys.modules):
                continue
            if isinstance(known, _Unloaded) and known.distribution is not None:
                both = f"{known.distribution} and {found.distribution}"
                self._break(
                    entry.name, f"two packages have a {self.kind} {entry.name!r}: {both}; uninstall one of them"
                )
                continue
            taken = f"there is another {self.kind} {entry.name!r}"
            stderr.print(f"{taken}; that of {found.distribution} is left out")

    def _loaded(self, name: str, unloaded: _Unloaded) -> T:
        """Import a thing; to import it may also be to register it.

        Raises:
            UserError: that fails; it names whose it is.
        """
        if name in self._loading:
            raise UserError(f"it registers no {self.kind} {name!r}")
        self._loading.add(name)
        try:
            thing = resolved(unloaded.reference)
            if name in self._loading:
                thing = thing if self._checked is None else self._checked(name, thing)
                fault = self._fault(thing)
                if fault is not None:
                    raise UserError(fault)
                self._known[name] = thing
        except Exception as error:
            reason = str(error) if isinstance(error, UserError) else told(error)
            self._break(
                name,
                f"the {self.kind} {name!r} of {unloaded.owner} cannot be loaded ({' '.join(reason.split())}); mend or "
                "uninstall that",
            )
            raise UserError(self._broken[name]) from error
        finally:
            self._loading.discard(name)
        return self.get(name)

    def _break(self, name: str, reason: str) -> None:
        self._known.pop(name, None)
        self._broken[name] = reason


@functools.lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> Any:
    """All entry points of what is installed on the path of modules: to look for them takes a while."""
    del path
    return entry_points()


def _stored(thing: Any) -> Any:
    return _Unloaded(thing) if isinstance(thing, str) else thing


def _distribution(entry: EntryPoint) -> str:
    """The distribution that an entry point is of, with its version."""
    return "a package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
