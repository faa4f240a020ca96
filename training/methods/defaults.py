"""What a method is trained with where a configuration leaves it to the method."""

import dataclasses
from collections.abc import Mapping

from training.config import RunConfig
from training.methods.settings import MethodName

#: τ of methods that adjust logits unless they are told not to.
_ADJUSTMENTS: Mapping[MethodName, float] = {"fedpareto": 1.0}


def with_method_defaults(config: RunConfig) -> RunConfig:
    """Return ``config`` with the method's own adjustment of logits where none was chosen."""
    if config.client.logit_adjustment is not None:
        return config
    own = _ADJUSTMENTS.get(config.method, 0.0)
    return dataclasses.replace(config, client=dataclasses.replace(config.client, logit_adjustment=own))
