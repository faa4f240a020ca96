"""A run's parts, set up and ready to train."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.protocol import Engine, never
from fedpareto.training.evaluation.evaluator import ProbeEvaluator
from fedpareto.training.methods.protocol import Method
from fedpareto.training.rounds.interrupt import UNINTERRUPTED, Interruptible
from fedpareto.training.trackers.protocol import Tracker


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run works with; none of it changes from round to round.

    Attributes:
        folder: where it is written.
        config: the configuration.
        config_mapping: the same as plain values, for checkpoints.
        space: the search space.
        entries: the cache's entries by ascending MACs.
        method: decides whom a round asks for what.
        engine: trains the clients.
        evaluator: evaluates the probes.
        tracker: is told of everything.
        should_stop: asked once a round is merged, and before clients are waited for or asked again.
        interruptible: which parts of a round may be left when the user asks to stop.
        quorum: share of a round's clients whose answers make a round; one answer always does when 0.
        retries: times those that failed are asked again when there are fewer.
        noise_key: secret that the noise of a private run is drawn with.

    Raises:
        ValueError: a run with noise has no key.
    """

    folder: Path
    config: RunConfig
    config_mapping: Mapping[str, Any]
    space: SearchSpace
    entries: Sequence[CacheEntry]
    method: Method
    engine: Engine
    evaluator: ProbeEvaluator
    tracker: Tracker
    should_stop: Callable[[], bool] = never
    interruptible: Interruptible = UNINTERRUPTED
    quorum: float = 0.0
    retries: int = 0
    noise_key: int | None = None

    def __post_init__(self) -> None:
        if self.config.privacy.noise and self.noise_key is None:
            raise ValueError("a run with noise needs a key to draw it with")
