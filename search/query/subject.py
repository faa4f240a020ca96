"""Target of a search: a search space or that of a trained run, with its fitness weights and known entries."""

import dataclasses
from pathlib import Path

from fedpareto.cache.entries import CacheEntry
from fedpareto.fitness.settings import load_settings
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space


@dataclasses.dataclass(frozen=True)
class RunImages:
    """The images of a trained run.

    Attributes:
        root: folder of the run's images now, if it is not where they were when the run was trained.
    """

    root: str | None = None

    @property
    def options(self) -> dict[str, object]:
        """The same option, for a suggested command."""
        return {"data.root": self.root}

    def check(self, run: str | None) -> None:
        """Refuse a folder that is empty text, or given without a run.

        Raises:
            UserError: naming the option.
        """
        if self.root is not None and run is None:
            raise UserError(
                f"--data.root is {self.root}, but no run is given whose images could be there: give --run FOLDER"
            )
        if self.root is not None and not self.root.strip():
            raise UserError("--data.root is empty, as if a variable was not set; name a folder, or leave it out")


@dataclasses.dataclass(frozen=True)
class SearchTarget:
    """Target of a search.

    Attributes:
        space: the search space.
        fitness: weights of the fitness.
        known: known entries of the space, such as those of a run's cache.
        run: folder of the trained run; None without training.
        named: the user's name for the space, a preset's name or a file; None with a run.
        classes: number of classes that the user gave beside it, if any.
    """

    space: SearchSpace
    fitness: FitnessSettings
    known: tuple[CacheEntry, ...] = ()
    run: Path | None = None
    named: str | None = None
    classes: int | None = None

    @property
    def options(self) -> dict[str, object]:
        """Command-line options that name the target."""
        return {"space": self.named, "classes": self.classes} if self.run is None else {"run": self.run}


def find_subject(space: str | None, run: str | None, classes: int | None, fitness: str | None) -> SearchTarget:
    """Read the target of a search from a preset name, a YAML file or a run's folder.

    Raises:
        UserError: both or neither were given, a file is damaged or missing.
    """
    if (space is None) == (run is None):
        raise UserError("give either --space NAME (architecture only) or --run FOLDER (trained subnet)")
    found = find_space(space, run, classes)
    if run is None:
        return SearchTarget(found, load_settings(fitness, found), named=space, classes=classes)
    from fedpareto.training.runs.folder import read_run_cache  # noqa: PLC0415 - imports torch

    folder = Path(run)
    cache = read_run_cache(folder, found)
    settings = cache.fitness if fitness is None else load_settings(fitness, found)
    return SearchTarget(found, settings, cache.entries, folder)


def find_space(space: str | None, run: str | None, classes: int | None) -> SearchSpace:
    """Return the space of a run's folder or, without one, of a preset name or a YAML file.

    Raises:
        UserError: classes were given with a run, a file is damaged or missing.
    """
    if run is None:
        return load_space(str(space), classes)
    if classes is not None:
        raise UserError("--classes goes with --space; a run has the classes of its images")
    from fedpareto.training.runs.folder import check_run, read_space  # noqa: PLC0415 - imports torch

    check_run(Path(run))
    return read_space(Path(run))
