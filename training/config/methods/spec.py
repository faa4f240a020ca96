"""Description of a training method for the rest of the package: one value, made without torch.

Commands, configurations and studies read here what they need to know of a method before it trains. So no other file
of the package names a method.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.extensions import not_taking, short, told
from fedpareto.supernet.common.registry import is_reference, resolved

if TYPE_CHECKING:
    from fedpareto.training.config.run import RunConfig

#: Settings outside of the methods' groups that only some methods read.
SOME_READ = ("server.largest_weight", "server.weight_by_examples")

#: A method's name is also that of a field and a group of options.
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class ReadWhen:
    """Condition under which a run of a method reads one of the method's settings.

    Attributes:
        holds: whether a run with a given configuration reads the setting.
        words: the condition in words, which follow "is read only by method NAME".
    """

    holds: "Callable[[RunConfig], bool]"
    words: str


@dataclasses.dataclass(frozen=True, eq=False)
class MethodSpec:
    """Description of a training method: its name, settings, factory and rules for its configurations.

    Attributes:
        name: its name for ``--method``, and the group of its settings: ``--NAME.setting``.
        summary: its description in the help, in a few words.
        factory: function that takes a ``MethodContext`` and returns the ``Method``; text ``module:name`` is imported
            when a run begins, so that ``--help`` does not load torch.
        settings: frozen dataclass of its settings, each with a default; None for a method without settings.
        private: whether the account of privacy holds for its rounds: nothing that depends on clients' images reaches
            the server's decisions except the clipped updates.
        single_network: whether it trains one network, at its own MACs, and no supernet.
        searches_first: whether it searches for an unknown number of rounds before the scheduled training begins.
        check: function that raises ``UserError`` for configurations that the method cannot work with.
        defaults: values of settings that a configuration leaves out (None), by full name; they come before those of
            the data set.
        before: values of settings in runs that are older than the setting, by full name.
        also_reads: settings among ``SOME_READ`` that it reads.
        read_when: conditions of those of its settings that it does not always read.
        files: settings that name a file which decides the networks that are trained, with the file's suffix; a run
            keeps a copy of the file.
        length: function that turns the words for a run's length (``30 rounds``) into those of this method.
        report: function that prints the method's report on a finished run, given the run's folder; may be text
            ``module:name``.
        coincides: function that gives the reason why a configuration computes the same as one of another method; None
            if it does not.
        normal: function that maps all configurations which end with the same supernet to one of them, given the
            number of entries of the cache (None where that is not known).

    Raises:
        UserError: the name or the settings do not fit into a configuration.
    """

    name: str
    summary: str
    factory: Callable[[Any], Any] | str
    settings: type | None = None
    private: bool = False
    single_network: bool = False
    searches_first: bool = False
    check: "Callable[[RunConfig], None] | None" = None
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    before: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    also_reads: tuple[str, ...] = ()
    read_when: Mapping[str, ReadWhen] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    length: "Callable[[RunConfig, str], str] | None" = None
    report: Callable[[Path], None] | str | None = None
    coincides: "Callable[[RunConfig], str | None] | None" = None
    normal: "Callable[[RunConfig, int | None], RunConfig] | None" = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise UserError(f"a method is called {short(self.name)}; its name must be small letters, digits and _")
        _check_kinds(self)
        if not self.summary:
            raise UserError(f"method {self.name} has no summary, which --help prints; say what it trains in some words")
        if self.settings is not None:
            _check_settings(self.name, self.settings)
        for setting in self.also_reads:
            if setting not in SOME_READ:
                raise UserError(f"method {self.name} reads {setting!r}; what some methods read are: {SOME_READ}")
        for setting in (*self.read_when, *self.files):
            if setting not in self.setting_names:
                raise UserError(f"method {self.name} has no setting {setting!r}; there are: {self.setting_names}")

    @property
    def setting_names(self) -> tuple[str, ...]:
        """Names of the method's own settings, without its group."""
        return () if self.settings is None else tuple(field.name for field in dataclasses.fields(self.settings))

    def make(self, context: Any) -> Any:
        """Make the ``Method`` for a ``MethodContext``.

        Raises:
            UserError: it cannot be loaded, or cannot work with the run's clients or cache.
        """
        return self._own(self.factory)(context)

    def print_report(self, folder: Path) -> None:
        """Print the method's report on the finished run in ``folder``, if the method has one.

        Raises:
            UserError: the function that prints it cannot be loaded, or a file of the run is damaged.
        """
        if self.report is not None:
            self._own(self.report)(folder)

    def _own(self, reference: Any) -> Any:
        try:
            return resolved(reference)
        except Exception as error:
            raise UserError(
                f"method {self.name} cannot be used: {reference} cannot be loaded ({told(error)})"
            ) from error


#: Attributes of a specification that are called, each with the parameters of that call.
_CALLED: Mapping[str, tuple[str, ...]] = {
    "factory": ("context",),
    "check": ("config",),
    "length": ("config", "words"),
    "report": ("folder",),
    "coincides": ("config",),
    "normal": ("config", "entries"),
}

#: Those of them that may be text ``module:name``, and those that are never left out.
_BY_NAME, _NEEDED = ("factory", "report"), ("factory",)

#: Types of all other attributes but the settings.
_KINDS: Mapping[str, type] = {
    "summary": str,
    "private": bool,
    "single_network": bool,
    "searches_first": bool,
    "defaults": Mapping,
    "before": Mapping,
    "also_reads": tuple,
    "read_when": Mapping,
    "files": Mapping,
}


def _check_kinds(spec: MethodSpec) -> None:
    """Refuse attributes of other kinds than theirs."""
    for name, kind in _KINDS.items():
        if not isinstance(getattr(spec, name), kind):
            raise UserError(
                f"method {spec.name}: {name} is {short(getattr(spec, name))}; it must be of type {kind.__name__}"
            )
    for name, parameters in _CALLED.items():
        value = getattr(spec, name)
        if (value is None and name not in _NEEDED) or (name in _BY_NAME and is_reference(value)):
            continue
        fault = not_taking(*parameters)(value)
        if fault is not None:
            raise UserError(f"method {spec.name}: {name}: {fault}")


def _check_settings(name: str, settings: type) -> None:
    """Refuse settings that no configuration could hold."""
    if not (isinstance(settings, type) and dataclasses.is_dataclass(settings) and settings.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise UserError(f"the settings of method {name} are {short(settings)}; they must be a frozen dataclass")
    for field in dataclasses.fields(settings):
        if field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"the setting {name}.{field.name} has no default; runs of other methods leave it out")
