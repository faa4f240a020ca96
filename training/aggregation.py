"""Aggregation: a weighted mean over the clients whose slice covers an entry, as a streaming fold."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from supernet.architecture import Architecture
from supernet.slices import Slices, slices
from supernet.space import SearchSpace
from supernet.weights import Tensors


def maxnet_weights(macs: Sequence[int], beta: float) -> list[float]:
    """Return the clients' weights: ``beta`` for the largest network, the others share 1 − ``beta``.

    Of several largest networks the first counts. A single client weighs 1 (MaxNet, SuperFedNAS 2024).
    """
    if len(macs) == 1:
        return [1.0]
    others = (1 - beta) / (len(macs) - 1)
    weights = [others] * len(macs)
    weights[max(range(len(macs)), key=lambda index: macs[index])] = beta
    return weights


class Fold:
    """Weighted sums of updates; one update is added at a time and can be forgotten.

    Holds one copy of the supernet's tensors, whatever the number of clients: weights are summed by distinct
    slice and spread over entries only while a tensor is merged.
    """

    def __init__(self, space: SearchSpace, tensors: Mapping[str, Tensor]) -> None:
        self._space = space
        self._sums = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        # Keyed by the slices' bounds: slices cannot be hashed in every supported Python.
        self._weights: dict[str, dict[tuple[tuple[int, int], ...], float]] = {name: {} for name in tensors}
        self.updates = 0

    def add(self, architecture: Architecture, tensors: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``tensors``, which belong to ``architecture``, with ``weight`` > 0."""
        for name, index in slices(self._space, architecture).items():
            self._sums[name][index].add_(tensors[name].to(self._sums[name].device), alpha=weight)
            bounds = tuple((part.start, part.stop) for part in index)
            self._weights[name][bounds] = self._weights[name].get(bounds, 0.0) + weight
        self.updates += 1

    def merge_into(self, tensors: Tensors, velocity: Tensors | None = None, momentum: float = 0.0) -> None:
        """Replace every covered entry of ``tensors`` by the mean; untouched entries keep their bytes.

        With ``velocity`` the server keeps momentum on covered entries (FedAvgM, Hsu et al. 2019):
        v ← momentum·v + (mean − x), x ← x + v. Ends the fold.
        """
        for name, tensor in tensors.items():
            cover = torch.zeros_like(tensor)
            for bounds, weight in self._weights[name].items():
                cover[_as_slices(bounds)] += weight
            covered = cover > 0
            mean = self._sums.pop(name).div_(cover)
            if velocity is None:
                torch.where(covered, mean, tensor, out=tensor)
                continue
            step = torch.where(covered, mean - tensor, 0.0)
            moved = velocity[name] * momentum + step
            velocity[name].copy_(torch.where(covered, moved, velocity[name]))
            tensor.copy_(torch.where(covered, tensor + moved, tensor))


def _as_slices(bounds: tuple[tuple[int, int], ...]) -> Slices:
    return tuple(slice(start, stop) for start, stop in bounds)
