"""Reader of fitness weights from a ``fitness.yaml``; without one a space's own weights apply."""

from pathlib import Path

from fedpareto.supernet.common.formats.typed_yaml import from_mapping, named, read_yaml_mapping
from fedpareto.supernet.fitness_settings import FitnessSettings, check_fitness
from fedpareto.supernet.space import SearchSpace


def fitness_of(fitness: FitnessSettings | str | Path | None, space: SearchSpace) -> FitnessSettings:
    """Weights that were given as such or as a YAML file; the own ones of ``space`` when nothing was given.

    Raises:
        UserError: a file cannot be read, or the weights do not fit the space.
    """
    if isinstance(fitness, FitnessSettings):
        check_fitness(fitness, space)
        return fitness
    return load_settings(None if fitness is None else str(fitness), space)


def load_settings(path: str | None, space: SearchSpace) -> FitnessSettings:
    """Return the weights in the file ``path``, or those of ``space`` when it is None.

    Raises:
        UserError: the file cannot be read, has unknown or mistyped fields, or does not fit the space.
    """
    if path is None:
        return space.fitness
    settings = from_mapping(FitnessSettings, read_yaml_mapping(Path(path)), path)
    with named(path):
        check_fitness(settings, space)
    return settings
