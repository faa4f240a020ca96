"""Every path through a network as modules on the network's own weights; a step runs one of them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.layer_table import architecture_rows
from fedpareto.supernet.networks.network import Network, build_blocks
from fedpareto.supernet.slices import row_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.nested import NestedWeights
from fedpareto.training.clients.paths import Path, paths_through
from fedpareto.training.clients.step import runnable
from fedpareto.training.execution.profile import Profile


class PathNetwork:
    """The paths through a network; a block is built when a path first takes it, and kept.

    Args:
        space: the search space.
        architecture: the network.
        network: its module, whose parameters all paths share.
        profile: whether modules are compiled.
    """

    def __init__(self, space: SearchSpace, architecture: Architecture, network: Network, profile: Profile) -> None:
        self.paths = paths_through(space, architecture)
        self._space, self._profile = space, profile
        self._parameters = dict(network.named_parameters())
        numbers = {_name(slot.stage, slot.index): number for number, slot in enumerate(self.paths.slots)}
        self._parts: list[int | Callable[[Tensor], Tensor]] = [
            numbers[path] if path in numbers else runnable(network.get_submodule(path), profile)
            for path in network.paths
        ]
        self._blocks: dict[tuple[int, int], _InnerBlock] = {}
        self._taken: list[_InnerBlock] = []

    def __call__(self, images: Tensor, path: Path, gates: Mapping[int, Tensor]) -> Tensor:
        """Map images (N, channels, side, side) to logits (N, classes) along one path.

        What a block adds to its shortcut, all that it puts out where it has none, is multiplied by its slot's gate if
        there is one. A slot that is skipped adds nothing, whatever its gate.
        """
        x, self._taken = images, []
        for part in self._parts:
            if not isinstance(part, int):
                x = part(x)
                continue
            choice = path[part]
            if choice is None:
                continue
            if self.paths.slots[part].choices[choice] is not None:
                block = self._block(part, choice)
                self._taken.append(block)
                x = block(x, gates.get(part))
        return x

    def push_gradients(self) -> None:
        """Hand the gradients of the last path to the network; what that path has no part in has none."""
        for block in self._taken:
            block.push_gradients()
        self._taken = []

    def _block(self, number: int, choice: int) -> "_InnerBlock":
        if (number, choice) not in self._blocks:
            self._blocks[number, choice] = self._built(number, choice)
        return self._blocks[number, choice]

    def _built(self, number: int, choice: int) -> "_InnerBlock":
        slots = self.paths.slots
        # What is around a block does not matter to it: all other slots hold their largest.
        chosen = [choice if other == number else slot.largest for other, slot in enumerate(slots)]
        architecture = self.paths.network(self.paths.path(chosen))
        name = _name(slots[number].stage, slots[number].index)
        rows = [row for row in architecture_rows(self._space, architecture) if row.layer.block == name]
        with torch.device("meta"):
            (module,) = build_blocks(rows, self._space.norm).values()
        shapes = {tensor: shape for row in rows for tensor, shape in row_shapes(row).items()}
        # What follows it adds the shortcut, if anything does.
        last = [row.layer.name.removeprefix(f"{name}.") for row in rows if row.layer.kind == "conv"][-1]
        return _InnerBlock(name, module.train(), last, NestedWeights(shapes, self._parameters), self._profile)


class _InnerBlock:
    """One choice of one slot, on slices of the network's weights; a gate multiplies what its ``last`` layer gives."""

    def __init__(self, name: str, module: nn.Module, last: str, weights: NestedWeights, profile: Profile) -> None:
        self._prefix, self._module, self._weights = f"{name}.", module, weights
        views = {name.removeprefix(self._prefix): view for name, view in weights.views().items()}
        module.load_state_dict(views, strict=True, assign=True)
        self._gate: Tensor | None = None
        module.get_submodule(last).register_forward_hook(self._gated)
        self._run = runnable(module, profile)

    def __call__(self, x: Tensor, gate: Tensor | None) -> Tensor:
        self._gate = gate
        try:
            return self._run(x)
        finally:
            self._gate = None

    def _gated(self, layer: nn.Module, inputs: object, output: Tensor) -> Tensor:
        del layer, inputs
        return output if self._gate is None else output * self._gate

    def push_gradients(self) -> None:
        """Add the gradients to the network's."""
        self._weights.push_gradients((self._prefix + name, own) for name, own in self._module.named_parameters())


def _name(stage: int, index: int) -> str:
    """Return the path of a slot's block in a network."""
    return f"stages.{stage}.{index}"
