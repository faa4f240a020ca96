"""Settings of the trackers that a run is reported to."""

import dataclasses
from typing import Literal

from fedpareto.supernet.common.errors import UserError

#: What wandb allows as the name of a project.
_LONGEST_PROJECT, _NOT_IN_PROJECTS = 128, "/\\#?%:"


@dataclasses.dataclass(frozen=True)
class TrackingConfig:
    """Trackers that a run is reported to, beside its own metrics.jsonl.

    Attributes:
        wandb: auto (online with a login, else offline), online, offline or off.
        project: wandb project.
        progress: show progress on the terminal.
        also: names of registered trackers that are told of the run, too.
    """

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    project: str = "fedpareto"
    progress: bool = True
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = self.project.strip()
        if not named or len(self.project) > _LONGEST_PROJECT or set(self.project) & set(_NOT_IN_PROJECTS):
            raise UserError(
                f"tracking.project is {self.project!r}; wandb takes 1 to {_LONGEST_PROJECT} characters, none of them "
                f"of {' '.join(_NOT_IN_PROJECTS)}"
            )
