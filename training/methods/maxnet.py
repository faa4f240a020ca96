"""One network a client, the largest and the smallest in every round, the largest weighing most (SuperFedNAS, 2024).

What distinguishes ``deepfednas`` and ``superfednas`` is where all other networks are drawn from: see ``curriculum.py``.
"""

import dataclasses
from collections.abc import Sequence

from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.aggregation.weighted_average import maxnet_weights
from fedpareto.training.methods.curriculum import Assigner
from fedpareto.training.methods.plans import WholeSupernet, rate_of
from fedpareto.training.methods.protocol import MethodContext
from fedpareto.training.methods.sampling import drawn_clients
from fedpareto.training.methods.schedules import largest_weight
from fedpareto.training.randomness import numpy_stream
from fedpareto.training.runs.progress import extent
from fedpareto.training.runs.state import RunState


class MaxNet(WholeSupernet):
    """Trains the whole supernet, one network a client.

    Args:
        ground: what to decide with.
        assigner: says which network each client gets.
    """

    def __init__(self, ground: MethodContext, assigner: Assigner) -> None:
        super().__init__(ground)
        self._assigner = assigner

    @property
    def weight_by_examples(self) -> bool:
        """Whether a client's update weighs as many times as it has images."""
        return self._ground.config.server.weight_by_examples

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``."""
        config, number = self._ground.config, state.round + 1
        drawn = drawn_clients(config, state, available)
        entries = self._assigner.assign(drawn, state.counts, numpy_stream(config.seed, "curriculum", number))
        done, total, _ = extent(config, state)
        beta = largest_weight(done, total, len(drawn), config.server.largest_weight)
        weights = maxnet_weights([entry.macs for entry in entries], beta)
        return RoundPlan(
            number=number,
            learning_rate=rate_of(config, state),
            beta=beta,
            assigned=dict(zip(drawn, entries, strict=True)),
            weights=dict(zip(drawn, weights, strict=True)),
        )

    def after_round(self, state: RunState, answers: RoundResults) -> RunState:
        """Return ``state`` with who had the smallest network and the largest it can run; clients that failed had none.

        The curriculum of a private run counts them as if they had: whom it gives what must not tell of images.
        """
        plan = answers.plan
        private = self._ground.config.privacy.clip
        counted = [(client, entry) for client, entry in plan.assigned.items() if private or client in answers.accepted]
        counts = state.counts.after(
            [client for client, entry in counted if self._assigner.is_smallest(entry)],
            [client for client, entry in counted if self._assigner.is_largest(client, entry)],
        )
        return dataclasses.replace(state, counts=counts)
