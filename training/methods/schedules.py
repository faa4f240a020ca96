"""Schedules over the rounds of a run: the clients' learning rate and the weight of the largest network."""

import math

from fedpareto.training.config.client import LearningRateSchedule

#: The ``step`` schedule divides the rate by 10 at these shares of the run (He et al., 2015).
_STEPS = (0.5, 0.75)


def learning_rate(schedule: LearningRateSchedule, base: float, round_index: int, rounds: int) -> float:
    """Return the learning rate of round ``round_index`` (from 0) of ``rounds``; later rounds have the last one."""
    done = min(1.0, round_index / rounds)
    if schedule == "cosine":
        return base * (1 + math.cos(math.pi * done)) / 2
    if schedule == "step":
        return base * 0.1 ** sum(done >= step for step in _STEPS)
    return base


def largest_weight(round_index: int, rounds: int, clients: int, start: float = 0.9, share: float = 0.8) -> float:
    """Return the weight β_t of the largest network, by MaxNet's schedule.

    It is a cosine from ``start`` to 1/clients over the first ``share`` of the rounds. ``start`` is raised to 1/clients
    if that is more, so that the largest network never weighs less than others.
    """
    end = 1 / clients
    start = max(start, end)
    done = min(1.0, round_index / max(1.0, share * rounds))
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
