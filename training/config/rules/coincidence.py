"""Coincidence of configurations: those that compute the same, though they look different."""

import dataclasses

from fedpareto.training.config.client import WEIGHING
from fedpareto.training.config.evaluation import EvaluationConfig
from fedpareto.training.config.rules.method_defaults import with_method_defaults
from fedpareto.training.config.rules.unused_settings import read_only
from fedpareto.training.config.run import RunConfig


def coincides(config: RunConfig) -> str | None:
    """Reason why a run's method computes the same as another method; None if it does not."""
    return None if config.spec.coincides is None else config.spec.coincides(config)


def normal_form(config: RunConfig, entries: int | None = None) -> RunConfig:
    """Return a configuration that is equal for runs that end with the same supernet.

    Args:
        config: of a run.
        entries: of its cache, where that is known.
    """
    config = with_method_defaults(read_only(config))
    if config.spec.normal is not None:
        config = read_only(config.spec.normal(config, entries))
    if config.client.imbalance not in WEIGHING:
        # What it has chosen is filled in as an adjustment of logits.
        config = dataclasses.replace(config, client=dataclasses.replace(config.client, imbalance=None))
    return _without_reports(config)


def _without_reports(config: RunConfig) -> RunConfig:
    """Return a configuration without where things are and what is reported."""
    defaults, evaluation = RunConfig(), EvaluationConfig()
    unread = dataclasses.replace(
        config.evaluation, every=evaluation.every, probes=evaluation.probes, metric=evaluation.metric
    )
    return dataclasses.replace(
        config,
        output=None,
        checkpoint=defaults.checkpoint,
        tracking=defaults.tracking,
        data=dataclasses.replace(config.data, decoders=None),
        evaluation=unread,
        execution=dataclasses.replace(config.execution, workers=None),
    )
