"""Training methods by name: the settings of each and its description for the package, a file for each method."""

from fedpareto.training.config.methods.cotrain import CoTrainConfig, CoTrainedNetworks
from fedpareto.training.config.methods.decnas import DecNasConfig
from fedpareto.training.config.methods.deepfednas import CacheDraw, DeepFedNasConfig
from fedpareto.training.config.methods.dfnas import DfnasConfig
from fedpareto.training.config.methods.fedavg import FedAvgConfig
from fedpareto.training.config.methods.fedpareto import FedParetoConfig
from fedpareto.training.config.methods.registry import METHODS, MethodName, register_method
from fedpareto.training.config.methods.spec import MethodSpec, ReadWhen

__all__ = [
    "METHODS",
    "CacheDraw",
    "CoTrainConfig",
    "CoTrainedNetworks",
    "DecNasConfig",
    "DeepFedNasConfig",
    "DfnasConfig",
    "FedAvgConfig",
    "FedParetoConfig",
    "MethodName",
    "MethodSpec",
    "ReadWhen",
    "register_method",
]
