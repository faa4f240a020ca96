"""The methods by name."""

from collections.abc import Callable, Mapping

from fedpareto.cache.cache_file import Cache
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.capabilities import capabilities
from fedpareto.training.config.methods import MethodName
from fedpareto.training.config.run import RunConfig
from fedpareto.training.methods.cotrain import cotrain
from fedpareto.training.methods.decnas.method import decnas
from fedpareto.training.methods.deepfednas import deepfednas
from fedpareto.training.methods.dfnas.method import dfnas
from fedpareto.training.methods.fedavg import fedavg
from fedpareto.training.methods.fedpareto import FedPareto
from fedpareto.training.methods.protocol import Method, MethodContext
from fedpareto.training.methods.superfednas import superfednas

METHODS: Mapping[MethodName, Callable[[MethodContext], Method]] = {
    "fedpareto": FedPareto,
    "deepfednas": deepfednas,
    "superfednas": superfednas,
    "fedavg": fedavg,
    "cotrain": cotrain,
    "dfnas": dfnas,
    "decnas": decnas,
}


def make_method(ground: MethodContext) -> Method:
    """Return the method a run's configuration names.

    Raises:
        UserError: it cannot work with the run's clients or cache.
    """
    return METHODS[ground.config.method](ground)


def method_of(config: RunConfig, space: SearchSpace, cache: Cache, labels: IntArray | None = None) -> Method:
    """Return the method of a run; ``labels`` are its federation's, where they are known.

    Raises:
        UserError: it cannot work with the run's clients or cache.
    """
    clients = capabilities(config.clients, space, config.seed)
    return make_method(MethodContext(config, space, cache.entries, clients, labels))
