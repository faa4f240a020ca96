"""A slow, plain account of what an architecture of each family is made of: shares no code with the product.

Written from the design's text alone: loops over an ``Architecture``, one ``Conv`` for every convolution.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from fedpareto.supernet.architecture import Architecture, Block
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.space import SearchSpace, StageSpec


class Conv(NamedTuple):
    """One convolution or linear layer; ``stage`` is 0 for the stem and −1 for what is never scored.

    ``kind`` numbers the places of scored convolutions in a block.
    """

    stage: int
    c_in: int
    c_out: int
    kernel: int
    groups: int
    side_out: int
    norm: bool
    bias: bool
    kind: int = 0

    @property
    def width(self) -> int:
        return self.c_in * self.kernel**2 // self.groups


class Place(NamedTuple):
    """A block with the map it is given: ``c_in`` channels, ``side`` pixels."""

    stage: int
    first: bool
    spec: StageSpec
    block: Block
    c_in: int
    c_out: int
    side: int

    @property
    def stride(self) -> int:
        return self.spec.stride if self.first else 1

    @property
    def side_out(self) -> int:
        return math.ceil(self.side / self.stride)


class Fitness(NamedTuple):
    fitness: float
    rho: float
    depth_regularity: float
    width_violation: float
    entropy: list[float]


def round8(value: float) -> int:
    """The nearest multiple of 8 (halves up), at least 8, raised by 8 if it fell below 0.9·value."""
    nearest = max(8, 8 * math.floor(value / 8 + 0.5))
    return nearest + 8 if nearest < 0.9 * value else nearest


def convolutions(space: SearchSpace, architecture: Architecture) -> Iterator[Conv]:
    """Yield every layer that has weights."""
    for conv in _normed_convolutions(space, architecture):
        yield conv._replace(norm=conv.norm and space.norm != "none")


def _normed_convolutions(space: SearchSpace, architecture: Architecture) -> Iterator[Conv]:
    side = math.ceil(architecture.resolution / space.stem.stride)
    stem = architecture.stem_width
    yield Conv(0, space.in_channels, stem, 3, 1, side, norm=True, bias=False)
    if space.family == "mobilenet":
        yield Conv(0, stem, stem, 3, stem, side, norm=True, bias=False)
        yield Conv(0, stem, stem, 1, 1, side, norm=True, bias=False)
    for place in _places(space, architecture):
        yield from _resnet_block(place) if space.family == "resnet" else _mobilenet_block(place)
    yield from _head(space, place.c_out, place.side_out)


def _places(space: SearchSpace, architecture: Architecture) -> Iterator[Place]:
    """Yield every block in the order they run."""
    side = math.ceil(architecture.resolution / space.stem.stride)
    c_in = architecture.stem_width
    for number, (spec, stage) in enumerate(zip(space.stages, architecture.stages, strict=True), 1):
        for index, block in enumerate(stage.blocks):
            place = Place(number, index == 0, spec, block, c_in, stage.width, side)
            yield place
            side, c_in = place.side_out, place.c_out


def _mobilenet_block(place: Place) -> Iterator[Conv]:
    c_in, side, number = place.c_in, place.side_out, place.stage
    mid = round8(round(c_in * place.block.expand))
    if mid != c_in:
        yield Conv(number, c_in, mid, 1, 1, place.side, norm=True, bias=False)
    yield Conv(number, mid, mid, place.block.kernel, mid, side, norm=True, bias=False, kind=1)
    if place.spec.se:
        squeezed = round8(mid / 4)
        yield Conv(-1, mid, squeezed, 1, 1, 1, norm=False, bias=True)
        yield Conv(-1, squeezed, mid, 1, 1, 1, norm=False, bias=True)
    yield Conv(number, mid, place.c_out, 1, 1, side, norm=True, bias=False, kind=2)


def _resnet_block(place: Place) -> Iterator[Conv]:
    side, mid = place.side_out, round8(place.c_out * place.block.expand)
    yield Conv(place.stage, place.c_in, mid, 3, 1, side, norm=True, bias=False)
    yield Conv(place.stage, mid, place.c_out, 3, 1, side, norm=True, bias=False, kind=1)
    if place.first:
        yield Conv(place.stage, place.c_in, place.c_out, 1, 1, side, norm=True, bias=False, kind=2)


def _head(space: SearchSpace, c_in: int, side: int) -> Iterator[Conv]:
    if space.head is not None:
        base = space.stages[-1].width
        multiplier = max(m for m in space.width_multipliers if round8(base * m) == c_in)
        last, hidden = round8(space.head.conv * multiplier), round8(space.head.hidden * multiplier)
        yield Conv(-1, c_in, last, 1, 1, side, norm=True, bias=False)
        yield Conv(-1, last, hidden, 1, 1, 1, norm=False, bias=False)
        c_in = hidden
    yield Conv(-1, c_in, space.classes, 1, 1, 1, norm=False, bias=True)


def macs_and_params(space: SearchSpace, architecture: Architecture) -> tuple[int, int]:
    macs = params = 0
    for conv in convolutions(space, architecture):
        macs += conv.width * conv.c_out * conv.side_out**2
        params += conv.width * conv.c_out + conv.c_out * (2 * conv.norm + conv.bias)
    return macs, params


def fitness(space: SearchSpace, architecture: Architecture, weights: FitnessSettings) -> Fitness:
    """F and its terms, section 6 of the design line by line."""
    scored = [conv for conv in convolutions(space, architecture) if conv.stage >= 0]
    kinds = weights.kind_weights if len(weights.kind_weights) > 1 else weights.kind_weights * 3
    entropies = []
    for number, stage in enumerate(architecture.stages, 1):
        first = 1 if weights.entropy == "prefix" else number
        total = sum(kinds[conv.kind] * math.log(conv.width) for conv in scored if first <= conv.stage <= number)
        side = [conv.side_out for conv in scored if conv.stage == number][-1]
        entropies.append(math.log(side**2 * stage.width) * total)
    rho = len(scored) / math.exp(sum(math.log(conv.width) for conv in scored) / len(scored))
    depths = [len(stage.blocks) for stage in architecture.stages]
    mean = sum(depths) / len(depths)
    regularity = math.exp(sum((depth - mean) ** 2 for depth in depths) / len(depths))
    widths = [stage.width for stage in architecture.stages]
    falls = sum(max(0, a - b) for a, b in itertools.pairwise(widths))
    alphas = weights.entropy_weights
    if len(alphas) == 1:
        alphas = alphas * len(entropies)
    value = sum(alpha * entropy for alpha, entropy in zip(alphas, entropies, strict=True))
    value += weights.effectiveness_weight * rho
    value -= weights.depth_penalty * regularity + weights.width_penalty * falls
    value -= weights.block_penalty * sum(depths)
    return Fitness(value, rho, regularity, falls, entropies)


def peak_activation_bytes(space: SearchSpace, architecture: Architecture) -> int:
    """Bytes of the fp32 maps that must live at once, at the worst moment, for one image."""
    return 4 * max(_live_elements(space, architecture))


def _live_elements(space: SearchSpace, architecture: Architecture) -> Iterator[int]:
    side = math.ceil(architecture.resolution / space.stem.stride)
    stem = architecture.stem_width * side**2
    yield space.in_channels * architecture.resolution**2 + stem
    if space.family == "mobilenet":
        yield 3 * stem  # at the fixed block's projection and addition: its input, a map and a map it makes
    for place in _places(space, architecture):
        yield from _live_in_resnet_block(place) if space.family == "resnet" else _live_in_mobilenet_block(place)
    c_in, side = place.c_out, place.side_out
    *_, last = _head(space, c_in, side)
    if space.head is not None:
        conv, hidden, _ = _head(space, c_in, side)
        yield c_in * side**2 + conv.c_out * side**2
        yield conv.c_out * side**2 + conv.c_out
        yield hidden.c_in + hidden.c_out
    else:
        yield c_in * side**2 + c_in
    yield last.c_in + last.c_out


def _live_in_mobilenet_block(place: Place) -> Iterator[int]:
    c_in, side = place.c_in, place.side_out
    mid = round8(round(c_in * place.block.expand))
    entry, wide = c_in * place.side**2, mid * place.side**2
    waiting = entry if place.stride == 1 and c_in == place.c_out else 0
    scaled, out = mid * side**2, place.c_out * side**2
    if mid != c_in:
        yield entry + wide
        yield waiting + wide + scaled
    else:
        yield entry + scaled
    if place.spec.se:
        squeezed = round8(mid / 4)
        yield waiting + scaled + squeezed
        yield waiting + 2 * scaled + squeezed + mid
    yield waiting + scaled + out
    if waiting:
        yield waiting + 2 * out


def _live_in_resnet_block(place: Place) -> Iterator[int]:
    entry = place.c_in * place.side**2
    mid = round8(place.c_out * place.block.expand) * place.side_out**2
    out = place.c_out * place.side_out**2
    yield entry + mid
    yield entry + mid + out  # the block's input waits for the shortcut
    if place.first:
        yield entry + out + out  # what the convolutions made waits while the shortcut is made of the input
    yield out + out + out  # both summands, one of them the input where it is not projected, and the sum
