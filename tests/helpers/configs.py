"""A configuration in which everything is set."""

from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.execution import ExecutionConfig
from fedpareto.training.config.flower import FlowerConfig
from fedpareto.training.config.methods import (
    CoTrainConfig,
    DecNasConfig,
    DeepFedNasConfig,
    DfnasConfig,
    FedAvgConfig,
    FedParetoConfig,
)
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.config.tracking import TrackingConfig

#: No field has its default value.
OTHER = RunConfig(
    space="mobilenet-cifar",
    output="somewhere/else",
    cache="cache.jsonl",
    init="runs/before",
    fitness="fitness.yaml",
    rounds=7,
    seed=11,
    engine="flower",
    compute="50T",
    method="superfednas",
    device="cuda:1",
    precision="bf16",
    data=DataConfig(
        *("imagefolder", "images", True, 0.25, 3, False, 5, 2, 7, 0.2, 1.0, 900, "pad", "i", "l", "c", True, True),
        *("encoded", 3),
    ),
    partition=PartitionConfig("shard", 0.3, 4, 5, True, 3),
    clients=ClientsConfig(
        30, 10, ("60M", "180M"), ("64M",), "zipf", 1.5, "100M", ("5ms",), "table.json", None, "independent", 0.5
    ),
    client=ClientConfig(2, 32, 0.025, "step", 0.5, 1e-4, 1.0, 0.1, 0.5, True, "adjustment", 0.5),
    # Weights by examples are refused beside privacy.
    server=ServerConfig(0.75, False, 0.9, 0.5, trim=0.3, hostile=2, max_share=0.4, outlier_factor=5.0),
    fedpareto=FedParetoConfig(2.0, 1.0, nested_start=False),
    deepfednas=DeepFedNasConfig("uniform"),
    fedavg=FedAvgConfig("network.json"),
    cotrain=CoTrainConfig("extremes", 0.25, 2.0),
    dfnas=DfnasConfig("start.json", 0.01, 0.4, 0.5, "60M", True),
    decnas=DecNasConfig("60M", "start.json", 0.05, 0.9, 3, 4, 12, 0.01, 0.05),
    privacy=PrivacyConfig(1.5, 0.5, 1e-6, 8.0, "exact"),
    evaluation=EvaluationConfig(3, 4, 512, 64, "balanced"),
    checkpoint=CheckpointConfig(5, 6),
    tracking=TrackingConfig("offline", "mine", False, ("mine",)),
    execution=ExecutionConfig("contiguous", False, True, False, 3, 2, "torch"),
    flower=FlowerConfig("superlink:9092", "ca.crt", True, 3, 10.0, 20.0, 0.75, 5, "bf16", "list", 9, 2.0, 7),
)
