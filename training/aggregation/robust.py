"""Robust aggregation of updates whose slices overlap: what its rules share."""

import abc
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import Slices, slices_within, tensor_shapes
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.aggregation.spool import MEMORY, Spool, SpooledUpdate
from fedpareto.training.aggregation.weighted_average import AVERAGING, ServerStep, faded_velocity

#: Fewest clients that a rule can compare.
COMPARED = 3

#: Most bytes of the changes that are looked at together.
_BLOCK = 1 << 25


class RobustAggregator(abc.ABC):
    """Base of the rules that hold against hostile clients: each entry moves by a robust mean of its clients' changes.

    A client's change of an entry is what it trained less what it was sent. An entry is that of the clients whose slice
    covers it; what no client covers keeps its bytes. **All clients weigh the same**, whatever ``weight`` says: the
    largest network's β, or a count of images that a client may invent, would let one client decide alone.

    **Where clients are too few.** Of the round's hostile clients more may meet at an entry than a rule holds against
    there, as only some clients cover it. So changes of entries that not all clients of the round cover are clipped
    before the rule sees them: to the median, over the round's clients, of the root mean square of a client's change, a
    norm that is comparable over slices of any size. Such an entry is moved by no more than that by anyone, whoever
    meets there. Where fewer than three clients cover an entry there is nothing to compare, and it moves by the mean of
    the clipped changes: the rule ``clipped``. Of an even number of norms the lower middle one is the median, so that of
    two clients the quieter sets the bound.

    **What it costs.** The round's updates are kept until they are merged: up to 1 GiB in the host's memory, further
    ones in files of the temporary folder (``Spool``), which are read once for their norms and once to be merged (by
    ``krum`` once more for distances). Merging looks at some rows of a tensor at a time, which takes some 200 MB.

    Updates may come in any order, on any device: the supernet's bytes are the same.

    Args:
        space: the search space.
        tensors: those that are to be moved: the supernet's, or a branch's.
        memory: most bytes of updates in memory.
    """

    #: Whether changes are clipped everywhere.
    _clips_all = False

    def __init__(self, space: SearchSpace, tensors: Mapping[str, Tensor], *, memory: int = MEMORY) -> None:
        self._space = space
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self._spool = Spool(memory)

    def add(self, architecture: Architecture, tensors: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's trained ``tensors``, which belong to ``architecture``; ``weight`` is not read.

        Raises:
            UserError: there is no room for it.
        """
        del weight
        self._spool.add(slices_within(tensor_shapes(self._space, architecture), self._shapes), tensors)

    def write_mean(self, tensors: Tensors, velocity: Tensors | None = None, server: ServerStep = AVERAGING) -> None:
        """Move every covered entry of ``tensors`` by the rule's step, and forget the updates.

        Args:
            tensors: those that the clients trained slices of.
            velocity: velocity of the server's momentum, moved in place; None without momentum.
            server: the server's rate and momentum.
        """
        updates = self._spool.ordered()
        scales = clip_scales([_rms(update, tensors) for update in updates])
        chosen = self._chosen(updates, tensors)
        for name, tensor in tensors.items():
            own = faded_velocity(velocity, name, server)
            # Of all clients, chosen or not: who was left out was sent the entry, too.
            shared = () if self._clips_all or len(updates) < COMPARED else _shared(updates, name)
            for start, stop in _blocks(tensor, len(chosen)):
                steps, covered = changes([updates[each] for each in chosen], name, tensor, start, stop)
                steps = _clipped(steps, [scales[each] for each in chosen], shared, start)
                step = self._combined(steps.flatten(1), covered.flatten(1)).view(steps.shape[1:])
                velocity_rows = None if own is None else own[start:stop]
                _move(tensor[start:stop], step, covered.any(0), velocity_rows, server)
        self._spool.clear()

    def _chosen(self, updates: Sequence[SpooledUpdate], tensors: Tensors) -> list[int]:
        """Indices of the updates that are merged: all, unless a rule leaves some out."""
        del tensors
        return list(range(len(updates)))

    @abc.abstractmethod
    def _combined(self, steps: Tensor, covered: Tensor) -> Tensor:
        """Robust mean of every entry's changes.

        Args:
            steps: float64 changes, (clients, entries); 0 where a client does not cover an entry.
            covered: bool, of the same shape: whether it does.

        Returns:
            float64 steps, (entries,); of entries that nobody covers any value.
        """


def clip_scales(norms: Sequence[float]) -> list[float]:
    """Factors that bring norms to at most their median, the lower middle one of an even number."""
    bound = sorted(norms)[(len(norms) - 1) // 2] if norms else 0.0
    return [min(1.0, bound / norm) if norm else 1.0 for norm in norms]


def mean_of(steps: Tensor, covered: Tensor) -> Tensor:
    """Mean of every entry's changes over the clients that cover it; both (clients, entries)."""
    return steps.sum(0) / covered.sum(0)


def sorted_steps(steps: Tensor, covered: Tensor) -> tuple[Tensor, Tensor]:
    """Changes of every entry in ascending order, (entries, clients), and the number of clients that cover it.

    Behind the changes of an entry stand infinities for the clients that do not cover it.
    """
    filled = steps.masked_fill(~covered, math.inf)
    return filled.t().contiguous().sort(dim=1).values, covered.sum(0)


def shared_blocks(updates: Sequence[SpooledUpdate], tensors: Tensors) -> Iterator[Tensor]:
    """Yield the changes of the entries that all clients cover, some at a time: float64, (clients, entries)."""
    for name, tensor in tensors.items():
        box = _shared(updates, name)
        for start, stop in _blocks(tensor, len(updates)) if box else ():
            steps, _ = changes(updates, name, tensor, start, stop)
            yield steps[(slice(None), *_within(box, start))].flatten(1)


def changes(
    updates: Sequence[SpooledUpdate], name: str, tensor: Tensor, start: int, stop: int
) -> tuple[Tensor, Tensor]:
    """Clients' changes of rows ``start`` to ``stop`` of a tensor: float64, (clients, rows, …), and who covers an entry.

    A change is 0 where a client does not cover the entry.
    """
    shape = (len(updates), stop - start, *tensor.shape[1:])
    steps = torch.zeros(shape, dtype=torch.float64, device=tensor.device)
    covered = torch.zeros(shape, dtype=torch.bool, device=tensor.device)
    for client, update in enumerate(updates):
        index = update.slices.get(name)
        if index is None:
            continue
        first, last = max(start, index[0].start), min(stop, index[0].stop)
        if first >= last:
            continue
        trained = update.rows(name, first - index[0].start, last - index[0].start)
        place: tuple[int | slice, ...] = (client, slice(first - start, last - start), *index[1:])
        # In float64: the difference of two large values must not be infinite.
        steps[place] = trained.to(tensor.device).double() - tensor[(slice(first, last), *index[1:])]
        covered[place] = True
    return steps, covered


def _rms(update: SpooledUpdate, tensors: Tensors) -> float:
    """Root mean square of a client's change over all entries of its slice."""
    squares, entries = 0.0, 0
    for name, index in update.slices.items():
        sent = tensors[name][index]
        trained = update.rows(name, 0, len(sent)).to(sent.device)
        squares += float((trained.double() - sent).square().sum())
        entries += sent.numel()
    return math.sqrt(squares / entries)


def _clipped(steps: Tensor, scales: Sequence[float], shared: Slices, start: int) -> Tensor:
    """Changes times the clients' ``scales``, but for those of the ``shared`` entries."""
    factors = torch.tensor(scales, dtype=steps.dtype).to(steps.device)
    scaled = steps * factors.view(-1, *[1] * (steps.ndim - 1))
    if shared:
        place = (slice(None), *_within(shared, start))
        scaled[place] = steps[place]
    return scaled


def _shared(updates: Sequence[SpooledUpdate], name: str) -> Slices:
    """Slice of a tensor that all clients cover; empty where there is none."""
    indices = [update.slices.get(name) for update in updates]
    owned = [index for index in indices if index is not None]
    if not owned or len(owned) < len(indices):
        return ()
    axes = zip(*owned, strict=True)
    return tuple(slice(max(part.start for part in axis), min(part.stop for part in axis)) for axis in axes)


def _within(index: Slices, start: int) -> Slices:
    """Slice of a tensor's rows from ``start`` on."""
    rows = slice(max(0, index[0].start - start), max(0, index[0].stop - start))
    return (rows, *index[1:])


def _blocks(tensor: Tensor, clients: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last row, exclusive, of blocks of a tensor; none where there are no clients."""
    if not clients:
        return
    row = tensor[0].numel() * clients * torch.float64.itemsize
    rows = max(1, _BLOCK // row)
    for start in range(0, len(tensor), rows):
        yield start, min(len(tensor), start + rows)


def _move(entries: Tensor, step: Tensor, covered: Tensor, velocity: Tensor | None, server: ServerStep) -> None:
    """Move the covered entries by a float64 step, or by the velocity once the step is added to it, in place."""
    if velocity is not None:
        step = velocity.double() + step
        velocity.copy_(torch.where(covered, step.to(velocity.dtype), velocity))
    moved = (entries.double() + server.rate * step).to(entries.dtype)
    entries.copy_(torch.where(covered, moved, entries))
