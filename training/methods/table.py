"""The methods by name."""

from collections.abc import Callable, Mapping

from training.methods.cotrain import cotrain
from training.methods.decnas.method import decnas
from training.methods.deepfednas import deepfednas
from training.methods.dfnas import dfnas
from training.methods.fedavg import fedavg
from training.methods.fedpareto import FedPareto
from training.methods.protocol import Ground, Method
from training.methods.settings import MethodName
from training.methods.superfednas import superfednas

METHODS: Mapping[MethodName, Callable[[Ground], Method]] = {
    "fedpareto": FedPareto,
    "deepfednas": deepfednas,
    "superfednas": superfednas,
    "fedavg": fedavg,
    "cotrain": cotrain,
    "dfnas": dfnas,
    "decnas": decnas,
}


def make_method(ground: Ground) -> Method:
    """Return the method a run's configuration names.

    Raises:
        UserError: it cannot work with the run's clients or cache.
    """
    return METHODS[ground.config.method](ground)
