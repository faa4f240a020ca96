"""SuperFedNAS (2024): a MaxNet method whose networks are drawn at random from the space, in the cache's range of MACs.

This is its training, in the form that the authors of DeepFedNAS compare with. Its search, which predicts accuracies
with a network trained on measured ones, is not here: ``search-subnet`` takes the fittest network of any supernet, also
of this one.
"""

from fedpareto.training.methods.curriculum import Assigner
from fedpareto.training.methods.maxnet import MaxNet
from fedpareto.training.methods.protocol import MethodContext


def superfednas(ground: MethodContext) -> MaxNet:
    """Make the method.

    Raises:
        UserError: a client cannot run the smallest network of the cache.
    """
    batch = ground.config.client.batch
    return MaxNet(ground, Assigner("sandwich", ground.space, ground.entries, ground.clients, batch))
