"""Defaults that depend on the method: they fill in settings that a configuration leaves out."""

import dataclasses

from fedpareto.training.config.inputs import replaced
from fedpareto.training.config.methods.registry import METHODS
from fedpareto.training.config.run import RunConfig, by_full_name, config_to_mapping

_ADJUSTMENT, _WEIGHT = "client.logit_adjustment", "server.largest_weight"

#: τ of the balanced softmax, for whoever chooses an adjustment without saying how much.
_CHOSEN = 1.0


def adjustment_of(method: str) -> float:
    """Return τ of a method that is not told how much to adjust logits."""
    return float(METHODS.get(method).defaults.get(_ADJUSTMENT, 0.0))


def _adjustment(config: RunConfig) -> float:
    """Adjustment of a configuration that does not say how much to adjust logits."""
    chosen = config.client.imbalance
    return adjustment_of(config.method) if chosen is None else _CHOSEN if chosen == "adjustment" else 0.0


def with_method_defaults(config: RunConfig) -> RunConfig:
    """Return ``config`` with the method's own values where none were chosen; all have ones of logits and weights."""
    given = by_full_name(config_to_mapping(config))
    defaults = {**config.spec.defaults, _ADJUSTMENT: _adjustment(config), _WEIGHT: config.largest_weight}
    return replaced(config, {name: value for name, value in defaults.items() if given[name] is None})


def with_adjustment(config: RunConfig, adjustment: float) -> RunConfig:
    """Return ``config`` with this adjustment of logits."""
    return dataclasses.replace(config, client=dataclasses.replace(config.client, logit_adjustment=adjustment))
