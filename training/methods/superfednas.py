"""SuperFedNAS (2024): networks are drawn at random from the space, in the cache's range of MACs.

That is its training, as the authors of DeepFedNAS compare with it. Its search is not here: it predicts accuracies
with a network trained on measured ones, while ``search-subnet`` takes the fittest network of any supernet, also of this
one.
"""

from fedpareto.training.methods.curriculum import Assigner
from fedpareto.training.methods.maxnet import MaxNet
from fedpareto.training.methods.protocol import MethodContext


def superfednas(ground: MethodContext) -> MaxNet:
    """Return the method.

    Raises:
        UserError: a client cannot run the smallest network of the cache.
    """
    batch = ground.config.client.batch
    return MaxNet(ground, Assigner("sandwich", ground.space, ground.entries, ground.clients, batch))
