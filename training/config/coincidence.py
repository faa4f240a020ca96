"""Which configurations compute the same, though they look different."""

import dataclasses

from fedpareto.training.config.method_defaults import with_method_defaults
from fedpareto.training.config.methods import DeepFedNasConfig, FedParetoConfig
from fedpareto.training.config.run import EvaluationConfig, RunConfig
from fedpareto.training.config.unused_settings import read_only

#: Clients a round of which one has the largest network and one the smallest, so that nothing is left to draw.
NOTHING_DRAWN = 2


def coincides(config: RunConfig) -> str | None:
    """Return why a run's method computes what another one would, or None if it does not."""
    if config.method in ("deepfednas", "superfednas") and config.clients.per_round == NOTHING_DRAWN:
        return (
            "with clients.per_round 2 one client has the largest network and one the smallest, and none draws: "
            "deepfednas and superfednas are one and the same"
        )
    return None


def normal_form(config: RunConfig, entries: int | None = None) -> RunConfig:
    """Return a configuration that is equal for runs that end with the same supernet.

    Args:
        config: of a run.
        entries: of its cache, where that is known.
    """
    config = with_method_defaults(read_only(config))
    if coincides(config) is not None:
        config = dataclasses.replace(config, method="deepfednas")
    if entries == 1:
        config = _with_one_entry(config)
    if entries == 2 and config.method == "cotrain" and config.cotrain.networks == "all":
        # The smallest and the largest are trained anyway: there is no third to draw.
        config = dataclasses.replace(config, cotrain=dataclasses.replace(config.cotrain, networks="extremes"))
    return _without_reports(config)


def _with_one_entry(config: RunConfig) -> RunConfig:
    """Return a configuration whose cache is one network without what would choose between several."""
    started = FedParetoConfig(nested_start=config.fedpareto.nested_start)
    config = dataclasses.replace(config, deepfednas=DeepFedNasConfig(), fedpareto=started)
    if config.method != "cotrain":
        return config
    return read_only(dataclasses.replace(config, cotrain=dataclasses.replace(config.cotrain, networks="largest")))


def _without_reports(config: RunConfig) -> RunConfig:
    """Return a configuration without where things are and what is reported."""
    defaults, evaluation = RunConfig(), EvaluationConfig()
    shown = {"every": evaluation.every, "probes": evaluation.probes}
    return dataclasses.replace(
        config,
        output=None,
        checkpoint=defaults.checkpoint,
        tracking=defaults.tracking,
        evaluation=dataclasses.replace(config.evaluation, **shown),
        execution=dataclasses.replace(config.execution, workers=None),
    )
