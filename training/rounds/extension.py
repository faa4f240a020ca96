"""Extension of a run to more rounds, or more compute, than it was started with, and its effect on the schedules."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.aggregation.round_results import RoundPlan
from fedpareto.training.config.run import RunConfig
from fedpareto.training.methods.protocol import Method
from fedpareto.training.runs.progress import extent
from fedpareto.training.runs.state import RunState


def before_extension(folder: Path, config: RunConfig, state: RunState, trained: Mapping[str, Any]) -> RunConfig | None:
    """Return ``config`` with the length that the run was ``trained`` for so far; None if it keeps that length.

    Raises:
        UserError: the new length leaves nothing to train, or is given as a setting that does not end the run.
    """
    before = dataclasses.replace(config, rounds=trained["rounds"], compute=trained.get("compute"))
    if config.compute is not None and config.rounds != before.rounds:
        raise UserError(
            f"rounds is {config.rounds}, but {folder} ends by compute ({config.compute} MACs); give it more "
            f"{option('compute')}, or add {option('compute', 'null')} to end it by rounds"
        )
    if (config.compute is None) == (before.compute is None) and extent(config, state) == extent(before, state):
        return None
    if extent(config, state).finished:
        raise UserError(_too_few(folder, config, state))
    return before


def extension_words(before: Method, now: Method, config: RunConfig, was: RunConfig, state: RunState) -> str:
    """Return the sentence about the effect of another length on the schedules of the run after ``state``.

    Args:
        before: the method with the length that the run had.
        now: the method with the length that it has.
        config: configuration of the run from here on.
        was: the same configuration with the length that it had.
        state: state of the run.
    """
    longer = f"training ends after {_length(config)}, not {_length(was)}"
    if state.origin is None:
        return f"{longer}: the search goes on as it was"
    clients = range(config.clients.count)
    changes = _schedule_words(before.assign(state, clients), now.assign(state, clients))
    return (
        f"{longer}: from round {state.round + 1} on its schedules run "
        f"over the new length, earlier rounds stay as they are; {changes}"
    )


def _schedule_words(old: RoundPlan, new: RoundPlan) -> str:
    words = f"the next learning rate is {new.learning_rate:.3g}, not {old.learning_rate:.3g}"
    if old.learning_rate == new.learning_rate:
        words = f"the learning rate stays {new.learning_rate:.3g}"
    if old.beta is not None and new.beta is not None:
        words += f", the largest network's weight {new.beta:.3g}, not {old.beta:.3g}"
    if old.power is not None and new.power is not None:
        words += f", the power of the draws {new.power:.3g}, not {old.power:.3g}"
    return words


def _length(config: RunConfig) -> str:
    return counted(config.rounds, "round") if config.compute is None else f"{config.compute} MACs"


def _too_few(folder: Path, config: RunConfig, state: RunState) -> str:
    if config.compute is not None:
        spent = format_quantity(state.compute)
        return f"compute is {config.compute}, but {folder} has spent {spent} MACs; name more, or leave compute out"
    since = " after its search" if state.origin is not None and state.origin.round else ""
    done = extent(config, state).done
    return f"rounds is {config.rounds}, but {folder} has done {done}{since}; name more, or leave rounds out"
