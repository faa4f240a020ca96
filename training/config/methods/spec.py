"""What the package knows of a training method besides its code: one value, made without torch.

All that commands, configurations and studies have to know of a method before it trains is said here, so that they name
none themselves.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.registry import resolved

if TYPE_CHECKING:
    from fedpareto.training.config.run import RunConfig

#: Settings outside of the methods' groups that only some methods read.
SOME_READ = ("server.largest_weight", "server.weight_by_examples")

#: A method's name is also that of a field and a group of options.
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class ReadWhen:
    """When a run of a method reads one of the method's settings.

    Attributes:
        holds: whether a run of the method reads it.
        words: the same, to go on after "is read only by method NAME".
    """

    holds: "Callable[[RunConfig], bool]"
    words: str


@dataclasses.dataclass(frozen=True, eq=False)
class MethodSpec:
    """A training method as all but its own code knows it.

    Attributes:
        name: what ``--method`` chooses it by, and the group of its settings: ``--NAME.setting``.
        summary: what help says of it, in some words.
        factory: takes a ``MethodContext`` and returns the ``Method``; text ``module:name`` is imported when a run
            begins, so that what needs torch is not loaded by ``--help``.
        settings: frozen dataclass of its settings, each with a default; None of a method without any.
        private: the account of privacy describes its rounds: of all that the server sees of clients' images, it uses
            the clipped updates alone.
        single_network: what it trains is one network, at its own MACs, and no supernet.
        searches_first: it searches for an unknown number of rounds before what is scheduled begins.
        check: raises ``UserError`` for configurations that the method cannot work with.
        defaults: values of settings that a configuration leaves out (None), by full name; they come before those of
            the data set.
        before: what runs of it did before a setting was there, by full name.
        also_reads: those of ``SOME_READ`` that it reads.
        read_when: for those of its settings that it does not always read.
        files: those of its settings that name a file which decides what is trained, with the file's suffix: a run
            keeps a copy.
        length: makes the words for how long a run is (``30 rounds``) into those of this method.
        report: is called with the folder of a finished run and prints what the method has to say of it; may be text
            ``module:name``.
        coincides: why a configuration of it computes what one of another method does, None if it does not.
        normal: an equal configuration for all configurations of it that end with the same supernet, given how many
            entries the cache has (None where that is not known).

    Raises:
        UserError: the name or the settings are not such as a configuration can have.
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
        if not _NAME.fullmatch(self.name):
            raise UserError(f"a method is called {self.name!r}; its name must be small letters, digits and _")
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
        """Names of its own settings, without its group."""
        return () if self.settings is None else tuple(field.name for field in dataclasses.fields(self.settings))

    def make(self, context: Any) -> Any:
        """The ``Method`` for a ``MethodContext``.

        Raises:
            UserError: it cannot be loaded, or cannot work with the run's clients or cache.
        """
        return self._own(self.factory)(context)

    def print_report(self, folder: Path) -> None:
        """Print what the method has to say of the finished run in ``folder``, if it has.

        Raises:
            UserError: what prints it cannot be loaded, or a file of the run is damaged.
        """
        if self.report is not None:
            self._own(self.report)(folder)

    def _own(self, reference: Any) -> Any:
        try:
            return resolved(reference)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"method {self.name} cannot be used: {reference} cannot be loaded ({reason})") from error


def _check_settings(name: str, settings: type) -> None:
    """Refuse settings that no configuration could hold."""
    if not (dataclasses.is_dataclass(settings) and settings.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise UserError(f"the settings of method {name} are {settings!r}; they must be a frozen dataclass")
    for field in dataclasses.fields(settings):
        if field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"the setting {name}.{field.name} has no default; runs of other methods leave it out")
