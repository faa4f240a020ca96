"""MaxNet (SuperFedNAS, 2024): the largest and the smallest network are in every round, and the largest weighs most.

Each client trains one network. The methods ``deepfednas`` and ``superfednas`` differ in the draw of all other networks:
see ``curriculum.py``.
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
    """Method that trains the whole supernet, one network a client.

    Args:
        ground: context of the run.
        assigner: assigner of networks to clients.
    """

    def __init__(self, ground: MethodContext, assigner: Assigner) -> None:
        super().__init__(ground)
        self._assigner = assigner

    @property
    def weight_by_examples(self) -> bool:
        """True if an update weighs as much as the client has images, as the configuration says."""
        return self._ground.config.server.weight_by_examples

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        """Return the plan of the round after ``state``."""
        config, number = self._ground.config, state.round + 1
        drawn = drawn_clients(config, state, available)
        entries = self._assigner.assign(drawn, state.counts, numpy_stream(config.seed, "curriculum", number))
        done, total, _ = extent(config, state)
        beta = None
        if config.server.weighs_clients:
            beta = largest_weight(done, total, len(drawn), config.largest_weight)
        weights = [1.0] * len(drawn) if beta is None else maxnet_weights([entry.macs for entry in entries], beta)
        return RoundPlan(
            number=number,
            learning_rate=rate_of(config, state),
            beta=beta,
            assigned=dict(zip(drawn, entries, strict=True)),
            weights=dict(zip(drawn, weights, strict=True)),
        )

    def after_round(self, state: RunState, answers: RoundResults) -> RunState:
        """Return ``state`` with the counts of the smallest network and the largest; clients that failed do not count.

        In a private run clients that failed count, too, as the later assignments must not reveal anything of images.
        """
        plan = answers.plan
        private = self._ground.config.privacy.clip
        counted = [(client, entry) for client, entry in plan.assigned.items() if private or client in answers.accepted]
        counts = state.counts.after(
            [client for client, entry in counted if self._assigner.is_smallest(entry)],
            [client for client, entry in counted if self._assigner.is_largest(client, entry)],
        )
        return dataclasses.replace(state, counts=counts)
