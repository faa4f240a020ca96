"""Reader of fitness weights from a ``fitness.yaml``; without one a space's own weights apply."""

from pathlib import Path

from fedpareto.supernet.common.formats.typed_yaml import from_mapping, named, read_yaml_mapping
from fedpareto.supernet.fitness_settings import FitnessSettings, check_fitness
from fedpareto.supernet.space import SearchSpace


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
