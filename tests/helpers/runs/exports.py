"""Subnets to export: networks that learned the digits, with what their files say of them."""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fedpareto.search.export.export import ExportImages
from fedpareto.search.runtimes.stopwatch import Effort
from fedpareto.search.subnet import SubnetInfo
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import decode, random_genes
from fedpareto.supernet.networks.network import build_network
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.data.batches import plain_batches
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.images import normalisation_of
from fedpareto.training.data.sources import load_images
from fedpareto.training.evaluation.calibration import calibrate
from helpers.runs.federation import MICRO

#: A latency that is measured as little as it can be.
HASTY = Effort(most=1, warm_up=0)

CALIBRATED = {"method": "pooled", "clients": 6, "batches": 4, "images": 256}


class Learned(NamedTuple):
    """A calibrated network, what its file says, and the images it is exported with."""

    network: nn.Module
    info: SubnetInfo
    images: ExportImages


@functools.cache
def learned(space: SearchSpace = MICRO, architecture: Architecture | None = None, steps: int = 150) -> Learned:
    """Return a network of the space that saw the digits for some steps."""
    if architecture is None:
        architecture = decode(space, random_genes(space, 1, np.random.default_rng(3))[0])
    preparation = Preparation(space.resolutions[-1], space.in_channels)
    digits = load_images("digits", "", "train", preparation)
    training, validation = digits.subset(torch.arange(256, len(digits))), digits.subset(torch.arange(256))
    normalisation = normalisation_of(training)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(space, architecture, running_statistics=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    batches = list(plain_batches(training, 64, architecture.resolution, normalisation))[:-1]
    for step in range(steps):
        images, labels = batches[step % len(batches)]
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    calibrate(network, (images for images, _ in batches[:4]))
    report: dict[str, Any] = {
        "macs": 7, "params": 5, "fitness": 1.5, "run": "/machine/runs/digits",
        "checkpoint": "/machine/runs/digits/checkpoints/round-000003", "calibration": CALIBRATED,
    }  # fmt: skip
    info = SubnetInfo(space, architecture, validation.classes, preparation, normalisation, report)
    return Learned(network, info, ExportImages(training.subset(torch.arange(256)), validation, 100))


def with_random_norms(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every norm of a network random weights, and random statistics where it has any."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.uniform_(-0.5, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)  # type: ignore[union-attr]
    return network
