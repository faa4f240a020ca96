"""What a user can set of the method ``fedavg``, and what the package knows of it."""

import dataclasses

from fedpareto.training.config.methods.spec import MethodSpec


@dataclasses.dataclass(frozen=True)
class FedAvgConfig:
    """Federated averaging of one network.

    Attributes:
        architecture: JSON file of it; the largest cache entry that every client can run when left out.
    """

    architecture: str | None = None


FEDAVG = MethodSpec(
    name="fedavg",
    summary="one fixed network",
    factory="fedpareto.training.methods.fedavg:fedavg",
    settings=FedAvgConfig,
    private=True,
    single_network=True,
    files={"architecture": ".json"},
)
