"""DeepFedNAS (2026): a MaxNet method whose networks are drawn from the Pareto cache."""

from fedpareto.training.methods.curriculum import Assigner
from fedpareto.training.methods.maxnet import MaxNet
from fedpareto.training.methods.protocol import MethodContext


def deepfednas(ground: MethodContext) -> MaxNet:
    """Make the method.

    Raises:
        UserError: a client cannot run the smallest network of the cache.
    """
    batch, draw = ground.config.client.batch, ground.config.deepfednas.draw
    return MaxNet(ground, Assigner("pareto", ground.space, ground.entries, ground.clients, batch, draw))
