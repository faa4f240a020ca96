"""The method of a run, made of what its configuration names."""

from fedpareto.cache.cache_file import Cache
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.capabilities import capabilities
from fedpareto.training.config.run import RunConfig
from fedpareto.training.methods.protocol import Method, MethodContext


def make_method(ground: MethodContext) -> Method:
    """Return the method a run's configuration names.

    Raises:
        UserError: it cannot work with the run's clients or cache.
    """
    method: Method = ground.config.spec.make(ground)
    return method


def method_of(config: RunConfig, space: SearchSpace, cache: Cache, labels: IntArray | None = None) -> Method:
    """Return the method of a run; ``labels`` are its federation's, where they are known.

    Raises:
        UserError: it cannot work with the run's clients or cache.
    """
    clients = capabilities(config.clients, space, config.seed)
    return make_method(MethodContext(config, space, cache.entries, clients, labels))
