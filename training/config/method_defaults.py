"""What a method is trained with where a configuration leaves it to the method."""

import dataclasses
from collections.abc import Mapping

from fedpareto.training.config.methods import MethodName
from fedpareto.training.config.run import RunConfig

#: τ of methods that adjust logits unless they are told not to.
_ADJUSTMENTS: Mapping[MethodName, float] = {"fedpareto": 1.0}


def adjustment_of(method: MethodName) -> float:
    """Return τ of a method that is not told how much to adjust logits."""
    return _ADJUSTMENTS.get(method, 0.0)


def with_method_defaults(config: RunConfig) -> RunConfig:
    """Return ``config`` with the method's own adjustment of logits where none was chosen."""
    if config.client.logit_adjustment is not None:
        return config
    return with_adjustment(config, adjustment_of(config.method))


def with_adjustment(config: RunConfig, adjustment: float) -> RunConfig:
    """Return ``config`` with this adjustment of logits."""
    return dataclasses.replace(config, client=dataclasses.replace(config.client, logit_adjustment=adjustment))
