"""Attacks of hostile clients on a training run, and an engine whose clients carry one out."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import slices
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.engines.protocol import Engine
from fedpareto.training.messages import Failure, Task, Update

#: Standard deviations that a-little-is-enough stays away from the mean.
LITTLE = 1.5

#: Standard deviation of noise, in root mean squares of the client's own change.
NOISE = 10.0

#: Makes of a round's honest updates the tensors that a hostile client sends in place of its own update.
Attack = Callable[[Update, Sequence[Update]], Tensors]


def scaled(factor: float) -> Attack:
    """Attack that multiplies the client's own change; of a negative factor it is a sign flip."""

    def attack(own: Update, honest: Sequence[Update]) -> Tensors:
        del honest
        return {name: sent + factor * change for name, sent, change in _changes(own)}

    return attack


def noise(own: Update, honest: Sequence[Update]) -> Tensors:
    """Gaussian noise in place of the change, with ``NOISE`` times its root mean square."""
    del honest
    generator = torch.Generator().manual_seed(own.task.round * 1000 + own.task.client)
    squares = sum(float(change.double().square().sum()) for _, _, change in _changes(own))
    deviation = NOISE * (squares / sum(sent.numel() for sent in own.task.tensors.values())) ** 0.5
    return {
        name: sent + deviation * torch.randn(sent.shape, generator=generator) for name, sent in own.task.tensors.items()
    }


def free_rider(own: Update, honest: Sequence[Update]) -> Tensors:
    """What the client was sent: it trains nothing."""
    del honest
    return {name: sent.clone() for name, sent in own.task.tensors.items()}


def honest_training(own: Update, honest: Sequence[Update]) -> Tensors:
    """The client's own update, as it is: what is wrong with it are its labels (``flipped_labels``)."""
    del honest
    return dict(own.tensors)


def little_is_enough(space: SearchSpace) -> Attack:
    """Attack of Baruch, Baruch and Goldberg (A Little Is Enough, NeurIPS 2019), who know all honest updates.

    Every entry is that of the honest clients' mean change less ``LITTLE`` standard deviations, over those that cover
    it; where no honest client does, the client's own.
    """

    def attack(own: Update, honest: Sequence[Update]) -> Tensors:
        index = slices(space, own.task.architecture)
        sent_tensors = {}
        for name, sent, change in _changes(own):
            shape = tuple(part.stop for part in index[name])
            stacked = torch.full((len(honest), *shape), torch.nan)
            for place, update in enumerate(honest):
                theirs = slices(space, update.task.architecture).get(name)
                if theirs is not None:
                    common = tuple(
                        slice(max(a.start, b.start), min(a.stop, b.stop))
                        for a, b in zip(theirs, index[name], strict=True)
                    )
                    inner = tuple(
                        slice(c.start - b.start, c.stop - b.start) for c, b in zip(common, theirs, strict=True)
                    )
                    there: tuple[int | slice, ...] = (place, *common)
                    stacked[there] = (update.tensors[name] - update.task.tensors[name])[inner]
            stacked = stacked[(slice(None), *index[name])]
            mean = stacked.nanmean(0)
            deviation = (stacked - mean).square().nanmean(0).sqrt()
            sent_tensors[name] = sent + torch.where(mean.isnan(), change, mean - LITTLE * deviation)
        return sent_tensors

    return attack


def flipped_labels(labels: Tensor, members: Mapping[int, Sequence[int]], classes: int) -> Tensor:
    """Labels in which class c of some clients' images is class ``classes`` − 1 − c.

    Args:
        labels: of all images.
        members: indices of the hostile clients' images, by client.
        classes: number of classes.
    """
    changed = labels.clone()
    for indices in members.values():
        chosen = torch.tensor(indices)
        changed[chosen] = classes - 1 - labels[chosen]
    return changed


class HostileEngine:
    """Engine some of whose clients are hostile: they train, wait for the others' updates and send what they make up.

    Args:
        inner: engine that trains the clients.
        hostile: the hostile clients.
        attack: their attack.
    """

    def __init__(self, inner: Engine, hostile: Collection[int], attack: Attack) -> None:
        self._inner, self._hostile, self._attack = inner, hostile, attack

    def available(self) -> Sequence[int]:
        """Return the clients of the inner engine."""
        return self._inner.available()

    def examples(self, client: int) -> int:
        """Return the number of a client's training images."""
        return self._inner.examples(client)

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        """Yield the honest clients' answers, then those of the hostile ones."""
        honest: list[Update] = []
        waiting: list[Update] = []
        for answer in self._inner.run(tasks):
            if isinstance(answer, Failure):
                yield answer
                continue
            kept = dataclasses.replace(answer, tensors={name: value.clone() for name, value in answer.tensors.items()})
            (waiting if answer.task.client in self._hostile else honest).append(kept)
        yield from honest
        for own in waiting:
            yield dataclasses.replace(own, tensors=self._attack(own, honest))


def _changes(update: Update) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the name, what was sent and the change of every tensor."""
    for name, sent in update.task.tensors.items():
        yield name, sent, update.tensors[name] - sent
