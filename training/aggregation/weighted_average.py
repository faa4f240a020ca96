"""Weighted average of clients' updates: each entry is averaged over the clients whose slice covers it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import Slices, slices_within, tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.execution.device import sent

_Bounds = tuple[tuple[int, int], ...]

#: Changes the sums of the tensor of a name in place.
Disturb = Callable[[str, Tensor], None]


def maxnet_weights(macs: Sequence[int], beta: float) -> list[float]:
    """Return the clients' weights: ``beta`` for the largest network, and equal shares of 1 − ``beta`` for the others.

    Of several largest networks the first counts. A single client weighs 1 (MaxNet, SuperFedNAS 2024).
    """
    if len(macs) == 1:
        return [1.0]
    others = (1 - beta) / (len(macs) - 1)
    weights = [others] * len(macs)
    weights[max(range(len(macs)), key=lambda index: macs[index])] = beta
    return weights


@dataclasses.dataclass(frozen=True)
class ServerStep:
    """Step of the server, which moves the supernet by the clients' mean step Δ: v ← μ·v + Δ, x ← x + η·v.

    FedAvgM (Hsu et al., 2019) with the server rate η of FedOpt (Reddi et al., 2021). Entries that no client of a round
    covers keep their bytes; their velocity fades as all others do, so that none comes back stale.

    Attributes:
        momentum: μ; a steady Δ moves the supernet by η·Δ / (1 − μ) a round.
        rate: η; 1 without momentum is plain averaging.
    """

    momentum: float = 0.0
    rate: float = 1.0


#: The supernet becomes the clients' mean.
AVERAGING = ServerStep()


class WeightedAverage:
    """Weighted average of updates: they are added one at a time, and only their sums are kept.

    It holds one copy of the merged tensors, whatever the number of clients, and keeps it for the next round. They are
    the supernet's tensors, or those of any network that contains all networks that are added.
    Weights are summed by distinct slice and laid over each other only while a tensor is merged.

    Trained tensors are added by ``add`` and merged by ``write_mean``. Where the divisor must not depend on who
    answered, ``reserve_weight`` counts weights beforehand, ``add_steps`` adds steps, and ``apply_step`` takes their
    mean.
    """

    def __init__(self, space: SearchSpace, tensors: Mapping[str, Tensor]) -> None:
        self._space = space
        # What a sum holds before its first weight is left over from the last round.
        self._sums = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
        # Keyed by the slices' bounds: slices cannot be hashed in every supported Python.
        self._weights: dict[str, dict[_Bounds, float]] = {name: {} for name in tensors}
        self._filled: set[str] = set()
        self._owned: dict[Architecture, Mapping[str, Slices]] = {}
        self.updates = 0

    def add(self, architecture: Architecture, tensors: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``tensors``, which belong to ``architecture``, with ``weight`` > 0."""
        self.reserve_weight(architecture, weight)
        self.add_steps(architecture, ((name, tensors[name]) for name in self._slices(architecture)), weight)

    def reserve_weight(self, architecture: Architecture, weight: float) -> None:
        """Add ``weight`` > 0 to the divisor of every entry that ``architecture`` owns."""
        for name, index in self._slices(architecture).items():
            bounds = tuple((part.start, part.stop) for part in index)
            self._weights[name][bounds] = self._weights[name].get(bounds, 0.0) + weight

    def add_steps(self, architecture: Architecture, tensors: Iterable[tuple[str, Tensor]], weight: float) -> None:
        """Add ``weight`` times one client's ``tensors`` to the sums; they may be made one at a time."""
        owned = self._slices(architecture)
        for name, given in tensors:
            index, sums = owned[name], self._sums[name]
            tensor = given.to(sums.device)
            if name in self._filled:
                sums[index].add_(tensor, alpha=weight)
            elif tensor.shape == sums.shape:
                torch.mul(tensor, weight, out=sums)
            else:
                sums.zero_()[index].add_(tensor, alpha=weight)
            self._filled.add(name)
        self.updates += 1

    def write_mean(self, tensors: Tensors, velocity: Tensors | None = None, server: ServerStep = AVERAGING) -> None:
        """Move every covered entry of ``tensors`` towards the mean; untouched entries keep their bytes.

        Plain averaging replaces entries by the mean. ``velocity`` is the server's, None without momentum. The fold is
        empty afterwards.
        """
        for name, tensor in tensors.items():
            sums, own = self._sums[name], faded_velocity(velocity, name, server)
            for part, cover in _parts(self._weights[name], tensor.device):
                if own is None and server.rate == 1:
                    torch.div(sums[part], cover, out=tensor[part])
                    continue
                step = sums[part].div_(cover).sub_(tensor[part])
                _move(tensor[part], step, None if own is None else own[part], server)
        self._empty()

    def covered_sums(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the sums of every tensor with a covered entry, by name; they are zero where nobody has added any."""
        for name, sums in self._sums.items():
            if self._weights[name]:
                if name not in self._filled:
                    sums.zero_()
                    self._filled.add(name)
                yield name, sums

    def apply_step(
        self, tensors: Tensors, velocity: Tensors | None, server: ServerStep, disturb: Disturb | None = None
    ) -> None:
        """Move every covered entry by the sum of the steps over the covering weights; others keep their bytes.

        ``disturb`` changes the sums of every tensor with a covered entry in place, before they are divided.
        ``velocity`` is the server's, None without momentum. The fold is empty afterwards.
        """
        for name, tensor in tensors.items():
            own = faded_velocity(velocity, name, server)
            if not self._weights[name]:
                continue
            sums = self._sums[name]
            if name not in self._filled:
                sums.zero_()
            if disturb is not None:
                disturb(name, sums)
            for part, cover in _parts(self._weights[name], tensor.device):
                _move(tensor[part], sums[part].div_(cover), None if own is None else own[part], server)
        self._empty()

    def _slices(self, architecture: Architecture) -> Mapping[str, Slices]:
        if architecture not in self._owned:
            shapes = {name: tuple(tensor.shape) for name, tensor in self._sums.items()}
            self._owned[architecture] = slices_within(tensor_shapes(self._space, architecture), shapes)
        return self._owned[architecture]

    def _empty(self) -> None:
        for weights in self._weights.values():
            weights.clear()
        self._filled.clear()
        self._owned.clear()
        self.updates = 0


def faded_velocity(velocity: Tensors | None, name: str, server: ServerStep) -> Tensor | None:
    """Return the velocity of a tensor, multiplied by the momentum in place; None where none is kept."""
    return None if velocity is None else velocity[name].mul_(server.momentum)


def _move(entries: Tensor, step: Tensor, velocity: Tensor | None, server: ServerStep) -> None:
    """Move entries by a mean step, or by the velocity once the step is added to it, in place."""
    entries.add_(step if velocity is None else velocity.add_(step), alpha=server.rate)


def _parts(weights: Mapping[_Bounds, float], device: torch.device) -> Iterator[tuple[Slices, Tensor]]:
    """Cut the area that overlapping slices cover into parts; yield each part with the sums of the weights on it.

    Parts are bands of the first axis, as wide as the cover is the same along it: long runs of memory. A band whose
    cover has holes (a wide slice with a small kernel, a narrow one with a large) is cut into cells.
    """
    if not weights:
        return
    edges = [sorted({edge for part in axis for edge in part}) for axis in zip(*weights, strict=True)]
    grid = np.zeros([len(axis) - 1 for axis in edges], dtype=np.float32)
    for bounds, weight in weights.items():
        places = zip(edges, bounds, strict=True)
        grid[tuple(slice(axis.index(start), axis.index(stop)) for axis, (start, stop) in places)] += weight
    for row in range(len(grid)):
        for box in ((slice(row, row + 1), *box) for box in _boxes(grid[row] > 0)):
            cover = grid[box]
            for axis, chosen in enumerate(box[1:], 1):
                cover = np.repeat(cover, np.diff(edges[axis])[chosen], axis=axis)
            part = tuple(slice(axis[one.start], axis[one.stop]) for axis, one in zip(edges, box, strict=True))
            yield part, sent(torch.from_numpy(cover), device)


def _boxes(covered: NDArray[np.bool_]) -> list[Slices]:
    """Return boxes that make up the covered cells: their bounding box if it has no hole, else every cell."""
    places = np.argwhere(covered)
    if not len(places):
        return []
    box = tuple(slice(int(low), int(high) + 1) for low, high in zip(places.min(0), places.max(0), strict=True))
    if covered[box].all():
        return [box]
    return [tuple(slice(int(at), int(at) + 1) for at in place) for place in places]
