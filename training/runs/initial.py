"""Initialisation from another run: finds that run's checkpoint, checks that it fits, and takes its supernet over."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fedpareto.supernet.blocks import CLASSIFIER
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.path_checks import is_file, is_folder
from fedpareto.supernet.common.storage.signatures import VerifyKey
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.runs.checkpoint import STATE, best_checkpoint, load_checkpoint
from fedpareto.training.runs.folder import SPACE, RunError, check_run, read_classes, read_space
from fedpareto.training.runs.verification import verify_checkpoint, verify_run


@dataclasses.dataclass(frozen=True)
class Beginning:
    """Checkpoint of another run to begin with.

    Attributes:
        checkpoint: its folder, an absolute path without links.
        space: the search space of its run.
        classes: the class names of its run.
    """

    checkpoint: Path
    space: SearchSpace
    classes: tuple[str, ...]

    def tensors(self, classes: Sequence[str], fresh: Tensors) -> tuple[Tensors, str]:
        """Return the supernet to begin with, and a sentence about the parts of it that are new.

        Args:
            classes: class names of the new run; if they differ from the checkpoint's, the classifier is a new one.
            fresh: a newly drawn supernet.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        read = load_checkpoint(self.checkpoint, self.space)
        words = f"training begins with the supernet of {self.checkpoint}"
        if tuple(classes) == self.classes:
            return read.models.supernet, words
        own = {name: tensor for name, tensor in fresh.items() if name.startswith(f"{CLASSIFIER}.")}
        mixed = {name: own.get(name, read.models.supernet[name]) for name in fresh}
        return mixed, f"{words}; its classifier is drawn anew, as the classes are others"


def beginning(path: str, space: SearchSpace, verify: VerifyKey | None = None) -> Beginning:
    """Return the checkpoint that the option ``--init`` names: itself, or the best one of the run that it names.

    Raises:
        SignatureError: ``verify`` has not signed it.
        UserError: it names neither, or its space builds other networks than ``space`` apart from the classes.
    """
    place = Path(path).resolve()
    is_checkpoint = is_folder(place) and is_file(place / STATE)
    run = place.parent.parent if is_checkpoint else place
    try:
        if is_checkpoint:
            verify_checkpoint(place, verify)
        else:
            verify_run(run, "best", verify)
        check_run(run)
    except RunError as error:
        raise RunError(f"init is {path}; {error}") from error
    found = read_space(run)
    if found.adapted(classes=space.classes).fingerprint != space.fingerprint:
        raise UserError(
            f"init is {path}, a supernet of {found.name}, which builds other networks than {space.name} "
            f"(they differ in {_differences(found, space)}); train its own space with {option('space')} {run / SPACE}"
        )
    return Beginning(place if is_checkpoint else best_checkpoint(run), found, read_classes(run))


def _differences(theirs: SearchSpace, ours: SearchSpace) -> str:
    """Return the names of the fields by which the networks of two spaces differ."""
    names = {field.name for field in dataclasses.fields(SearchSpace)} - {"name", "fitness", "classes"}
    return ", ".join(name for name in sorted(names) if getattr(theirs, name) != getattr(ours, name))
