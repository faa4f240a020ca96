"""The methods: what a user can set of each, and what the package knows of it; a file each."""

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
