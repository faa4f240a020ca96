import dataclasses
from itertools import pairwise

import pytest
import torch
from helpers.networks.strategies import preset
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the library's own convention
from torch.utils.flop_counter import FlopCounterMode

from fedpareto.fitness.score import Scores, score
from fedpareto.supernet.architecture import Architecture, Block, Stage
from fedpareto.supernet.genes import encode, largest_genes
from fedpareto.supernet.networks.network import build_network
from fedpareto.supernet.space import Norm, SearchSpace, StageSpec, StemSpec

#: A space with strides and activations of both kinds, one of its architectures, and that one's widths.
_SPACE = SearchSpace(
    name="resnets",
    family="resnet",
    stem=StemSpec(16),
    stages=(StageSpec(32, stride=2), StageSpec(24), StageSpec(40, stride=2, activation="hswish")),
    resolutions=(7, 8, 9, 13, 16),
    depths=(1, 2, 3),
    expands=(0.25, 0.5, 1.5),
    width_multipliers=(1.0,),
    classes=7,
    in_channels=2,
)
_STAGES = (
    Stage(32, (Block(0.5), Block(0.25), Block(1.5))),
    Stage(24, (Block(1.5),)),
    Stage(40, (Block(0.25), Block(0.5))),
)
_WIDTHS = (16, 32, 24, 40)
_MIDS = ((16, 8, 48), (40,), (16, 24))


def _window_means(x: Tensor, stride: int) -> Tensor:
    """Means of stride×stride pixels; windows over the edge count only what they have of the map."""
    beyond = -x.shape[-1] % stride

    def sums(values: Tensor) -> Tensor:
        padded = F.pad(values, (0, beyond, 0, beyond))
        return padded.unfold(2, stride, stride).unfold(3, stride, stride).sum((-1, -2))

    return sums(x) / sums(torch.ones_like(x))


def _plain_norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(channels // 8, channels)
    if kind == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels, track_running_stats=False)


class _PlainBlock(nn.Module):
    """A ResNet block as the design words it."""

    def __init__(
        self, c_in: int, mid: int, c_out: int, stride: int, norm: Norm, spec: StageSpec, *, projects: bool
    ) -> None:
        super().__init__()
        self.stride, self.activation = stride, F.relu if spec.activation == "relu" else F.hardswish
        self.activates_branch = spec.branch_activation
        self.conv1 = nn.Conv2d(c_in, mid, 3, stride=stride, padding=1, bias=False)
        self.norm1 = _plain_norm(norm, mid)
        self.conv2 = nn.Conv2d(mid, c_out, 3, padding=1, bias=False)
        self.norm2 = _plain_norm(norm, c_out)
        self.projection = nn.Conv2d(c_in, c_out, 1, bias=False) if projects else None
        self.norm3 = _plain_norm(norm, c_out) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        if self.activates_branch:
            out = self.activation(out)
        if self.projection is not None and self.norm3 is not None:
            x = self.norm3(self.projection(_window_means(x, self.stride)))
        return self.activation(out + x)


class _PlainResNet(nn.Module):
    """A ResNet with ReLU in its stem and no head but the classifier; ``mids`` are the hidden widths, by stage."""

    def __init__(self, space: SearchSpace, widths: tuple[int, ...], mids: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        stem, *_ = widths
        self.conv = nn.Conv2d(space.in_channels, stem, 3, stride=space.stem.stride, padding=1, bias=False)
        self.norm = _plain_norm(space.norm, stem)
        self.blocks = nn.Sequential()
        for spec, (before, width), stage in zip(space.stages, pairwise(widths), mids, strict=True):
            c_in, stride, projects = before, spec.stride, True
            for mid in stage:
                block = _PlainBlock(c_in, mid, width, stride, space.norm, spec, projects=projects)
                self.blocks.append(block)
                c_in, stride, projects = width, 1, False
        self.classifier = nn.Linear(widths[-1], space.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.norm(self.conv(x))))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


def _check_costs(oracle: nn.Module, scores: Scores, image: tuple[int, int]) -> None:
    channels, side = image
    device = next(oracle.parameters()).device
    with FlopCounterMode(display=False) as counter:
        oracle(torch.empty(2, channels, side, side, device=device))
    assert scores.macs.tolist() == [counter.get_total_flops() / 4]
    assert scores.params.tolist() == [sum(parameter.numel() for parameter in oracle.parameters())]


@pytest.mark.parametrize("branch_activation", [False, True])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("side", [7, 8, 9, 13, 16])
def test_a_resnet_is_the_one_written_plainly(side: int, norm: Norm, branch_activation: bool) -> None:
    torch.manual_seed(0)
    stages = tuple(dataclasses.replace(stage, branch_activation=branch_activation) for stage in _SPACE.stages)
    space = dataclasses.replace(_SPACE, norm=norm, stages=stages)
    network = build_network(space, Architecture("resnet", side, 16, _STAGES))
    oracle = _PlainResNet(space, _WIDTHS, _MIDS)
    with torch.no_grad():
        for parameter, source in zip(network.parameters(), oracle.parameters(), strict=True):
            assert parameter.shape == source.shape
            if source.dim() == 1:
                source.uniform_(0.5, 1.5)
            parameter.copy_(source)
        images = torch.randn(4, 2, side, side)
        torch.testing.assert_close(network(images), oracle(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("side", [7, 8, 9, 13, 16])
def test_macs_and_params_of_a_resnet_are_those_of_the_one_written_plainly(side: int, norm: Norm) -> None:
    space = dataclasses.replace(_SPACE, norm=norm)
    scores = score(space, encode(space, Architecture("resnet", side, 16, _STAGES)))
    _check_costs(_PlainResNet(space, _WIDTHS, _MIDS), scores, (2, side))


def test_macs_and_params_of_the_largest_resnet_cifar_are_those_of_the_one_written_plainly() -> None:
    space = preset("resnet-cifar")
    with torch.device("meta"):
        oracle = _PlainResNet(space, (64, 256, 512, 1024, 2048), ((64,) * 3, (128,) * 3, (256,) * 3, (512,) * 3))
    _check_costs(oracle, score(space, largest_genes(space)), (3, 32))
