"""Statistics of one client in a calibration that are impossible, or far beyond those of the other clients."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from fedpareto.training.evaluation.moments import impossible, moments_of, norms_of
from fedpareto.training.messages import CalibrationTask, Failure, Statistics

#: Times the median client's second moment of a channel that one client's may be. Honest clients with few classes each
#: have not been seen to reach 4.
MOST = 20.0

#: Share of a layer's mean that is added to the median: channels that are dead for most clients tell nothing.
_SHARE = 0.1

#: Parts from which on their median can tell an outlier.
_ENOUGH = 3


def judged(
    tasks: Iterable[CalibrationTask], answers: Iterable[Statistics | Failure]
) -> Iterator[tuple[CalibrationTask, Statistics | Failure]]:
    """Yield every task with its answer, or with the failure that the answer counts as.

    All answers are held, a few thousand numbers each; ``plan_calibration`` bounds how many clients are asked.
    """
    found: list[tuple[CalibrationTask, Statistics | Failure]] = []
    for task, answer in zip(tasks, answers, strict=True):
        problem = impossible(answer) if isinstance(answer, Statistics) and answer.batches else None
        found.append((task, answer if problem is None else Failure(task, "non-finite", problem, answer.traffic)))
    reasons = dict[int, str]()
    for architecture in {task.architecture for task, _ in found}:
        own = {
            index: answer
            for index, (task, answer) in enumerate(found)
            if task.architecture == architecture and isinstance(answer, Statistics) and answer.batches
        }
        reasons |= dict(_outliers(list(own), list(own.values())))
    for index, (task, answer) in enumerate(found):
        yield task, Failure(task, "outlier", reasons[index], answer.traffic) if index in reasons else answer


def _outliers(numbers: Sequence[int], parts: Sequence[Statistics]) -> Iterator[tuple[int, str]]:
    """Yield the number of every part that is beyond the others, and the reason."""
    if len(parts) < _ENOUGH:
        return
    for norm in norms_of(parts[0]):
        moments = torch.stack([_second_moment(part, norm) for part in parts])
        # The upper one of two in the middle would be a hostile client's sooner.
        median = moments.median(dim=0).values
        times = (moments / (median + _SHARE * median.mean() + 1e-12)).amax(dim=1)
        for number, most in zip(numbers, times.tolist(), strict=True):
            if not most <= MOST:
                reason = f"{most:.2g}× the median client's in a channel (at most {MOST:g}×)"
                yield number, f"its statistics of {norm} are {reason}"


def _second_moment(part: Statistics, norm: str) -> Tensor:
    """Return the mean square of a norm's inputs, shape (channels,): variance within batches and squared means."""
    _, within, squared = (part.sums[name] / part.images for name in moments_of(norm))
    return within + squared
