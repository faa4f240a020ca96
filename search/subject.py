"""What is searched: a space or a trained run's, with its fitness weights and what is known of it."""

import dataclasses
from pathlib import Path

from cache.entries import Entry
from fitness.settings import load_settings
from supernet.errors import UserError
from supernet.space import FitnessSettings, SearchSpace, load_space


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is searched.

    Attributes:
        space: the search space.
        fitness: weights of the fitness.
        known: entries that are known of it.
        run: folder of the run it is of; None without training.
    """

    space: SearchSpace
    fitness: FitnessSettings
    known: tuple[Entry, ...] = ()
    run: Path | None = None

    @property
    def option(self) -> str:
        """The option of a command that names it."""
        return f"--space {self.space.name}" if self.run is None else f"--run {self.run}"


def find_subject(space: str | None, run: str | None, classes: int | None, fitness: str | None) -> Subject:
    """Return what a preset name, a YAML file or a run's folder stands for.

    Raises:
        UserError: both or neither were given, a file is damaged or missing.
    """
    if (space is None) == (run is None):
        raise UserError("give either --space NAME (architecture only) or --run FOLDER (trained subnet)")
    if run is None:
        found = load_space(str(space), classes)
        return Subject(found, load_settings(fitness, found))
    if classes is not None:
        raise UserError("--classes goes with --space; a run has the classes of its images")
    return _of_run(Path(run), fitness)


def _of_run(folder: Path, fitness: str | None) -> Subject:
    from training.run_folder import check_run, read_run_cache, read_space  # noqa: PLC0415 - imports torch

    check_run(folder)
    space = read_space(folder)
    cache = read_run_cache(folder, space)
    settings = cache.fitness if fitness is None else load_settings(fitness, space)
    return Subject(space, settings, cache.entries, folder)
