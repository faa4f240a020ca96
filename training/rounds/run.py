"""Parts of a run, set up and ready to train."""

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
from fedpareto.training.privacy.ledger import Ledger
from fedpareto.training.rounds.interrupt import UNINTERRUPTED, Interruptible
from fedpareto.training.runs.signing import CheckpointSigner
from fedpareto.training.trackers.protocol import Tracker


@dataclasses.dataclass(frozen=True)
class Run:
    """Parts that a run works with, none of which change from round to round.

    Attributes:
        folder: folder that it is written to.
        config: the configuration.
        config_mapping: the configuration as plain values, for checkpoints.
        space: the search space.
        entries: the cache's entries by ascending MACs.
        method: training method, which plans the rounds.
        engine: engine that trains the clients.
        evaluator: evaluator of the probes.
        tracker: tracker that is told of every event.
        should_stop: function that is asked once a round is merged, and before clients are waited for or asked again.
        interruptible: parts of a round that may be left when the user asks to stop.
        quorum: share of a round's clients whose answers are enough for a round; if 0 one answer is enough.
        retries: number of times that failed clients are asked again when there are fewer answers.
        ledger: ledger of the releases of a run with noise, with its secret.
        signer: signs the checkpoints; None to sign none.

    Raises:
        ValueError: a run with noise has no ledger.
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
    ledger: Ledger | None = None
    signer: CheckpointSigner | None = None

    def __post_init__(self) -> None:
        if self.config.privacy.noise and self.ledger is None:
            raise ValueError("a run with noise needs a ledger, and a key to draw the noise with")
