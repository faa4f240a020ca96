"""The weights a run trains: the supernet's, and those of networks that train beside it for a while."""

import dataclasses
from collections.abc import Callable, Mapping

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import Tensors, extract, views
from fedpareto.supernet.space import SearchSpace


@dataclasses.dataclass(frozen=True)
class Branch:
    """A network with weights of its own.

    Attributes:
        architecture: the network.
        tensors: its weights, with its own shapes, as ``fedpareto.supernet.slices.tensor_shapes`` gives them.
    """

    architecture: Architecture
    tensors: Tensors


@dataclasses.dataclass
class Models:
    """All weights of a run; tensors are updated in place, branches come and go.

    Attributes:
        supernet: the supernet's tensors.
        velocity: the server's momentum on them, if it has one; branches have none.
        branches: networks that train beside the supernet, by name.
    """

    supernet: Tensors
    velocity: Tensors | None = None
    branches: dict[str, Branch] = dataclasses.field(default_factory=dict)

    def moved(self, move: Callable[[Tensors], Tensors]) -> "Models":
        """The same weights with the tensors of every network passed through ``move``."""
        return Models(
            move(self.supernet),
            None if self.velocity is None else move(self.velocity),
            {name: Branch(branch.architecture, move(branch.tensors)) for name, branch in self.branches.items()},
        )

    def tensors(self, name: str | None) -> Tensors:
        """Return the tensors of a branch, or the supernet's where there is no branch of that name."""
        return self.branches[name].tensors if name in self.branches else self.supernet

    def sync_branches(self, space: SearchSpace, adopted: str | None, wanted: Mapping[str, Architecture]) -> None:
        """Copy the branch ``adopted`` into the supernet's slices, then keep the ``wanted`` branches and no other.

        A branch that there is not yet inherits its slices of the supernet. A branch whose name is wanted for another
        architecture is a new one, as is every branch once one has been adopted.
        """
        if adopted is not None:
            branch = self.branches[adopted]
            for name, view in views(space, self.supernet, branch.architecture).items():
                view.copy_(branch.tensors[name])
            self.branches.clear()
        kept = {
            name: self.branches[name]
            for name, architecture in wanted.items()
            if name in self.branches and self.branches[name].architecture == architecture
        }
        self.branches = {
            name: kept.get(name) or Branch(architecture, extract(space, self.supernet, architecture))
            for name, architecture in wanted.items()
        }
