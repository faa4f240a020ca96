"""Capabilities of clients: limits on compute, memory and latency, from the configuration or a file."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedpareto.cache.costs.cost import AdditiveCost
from fedpareto.cache.costs.latency.cost import read_latency
from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.arrays import FloatArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.formats.units import format_bytes, format_quantity, parse_milliseconds, parse_quantity
from fedpareto.supernet.common.storage.files import read_text
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.genes import encode
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.randomness import numpy_stream

#: What a line of ``clients.file`` may hold.
_LIMITS = ("macs", "memory", "latency")


@dataclasses.dataclass(frozen=True)
class LatencyLimit:
    """Limit on the time of one image, by a latency table.

    Attributes:
        milliseconds: most time of one image.
        cost: the latency table, for a space's networks.
        space: the search space.
    """

    milliseconds: float
    cost: AdditiveCost
    space: SearchSpace

    def within(self, architecture: Architecture) -> bool:
        """Return True if a network is fast enough."""
        return _latency(self.cost, self.space, architecture) <= self.milliseconds


@dataclasses.dataclass(frozen=True)
class Capability:
    """Limits of one client on the networks that it can run; None where it has no limit.

    Attributes:
        macs: most multiply–accumulates of one image.
        memory: most bytes of parameters and feature maps of one batch.
        latency: longest time of one image.
    """

    macs: int | None = None
    memory: int | None = None
    latency: LatencyLimit | None = None

    def runs(self, entry: CacheEntry, batch_size: int) -> bool:
        """Return True if the client can train a network at a batch size."""
        return (
            (self.macs is None or entry.macs <= self.macs)
            and (self.memory is None or training_memory(entry, batch_size) <= self.memory)
            and (self.latency is None or self.latency.within(entry.architecture))
        )

    def __str__(self) -> str:
        limits = []
        if self.macs is not None:
            limits.append(f"{format_quantity(self.macs)} MACs")
        if self.memory is not None:
            limits.append(format_bytes(self.memory))
        if self.latency is not None:
            limits.append(f"{self.latency.milliseconds:g} ms")
        return " and ".join(limits) or "anything"


def training_memory(entry: CacheEntry, batch_size: int) -> int:
    """Return the bytes of fp32 parameters and feature maps of one batch that a client needs for ``entry``."""
    return 4 * entry.params + batch_size * entry.activation_bytes


def capabilities(config: ClientsConfig, space: SearchSpace, seed: int) -> list[Capability]:
    """Return the capability of every client; ``seed`` is the run's.

    Raises:
        UserError: the file or the latency table cannot be read, or does not fit.
    """
    if config.file is not None:
        return _listed_in_file(Path(config.file), config, space)

    def limit(values: tuple[str, ...], client: int) -> int | None:
        return parse_quantity(values[client % len(values)]) if values else None

    latencies = _latency_limits(config, space, config.max_latency)
    return [
        Capability(macs, limit(config.max_memory, client), latencies[client % len(latencies)] if latencies else None)
        for client, macs in enumerate(_macs_limits(config, seed))
    ]


def able_clients(
    clients: Sequence[Capability], entry: CacheEntry, available: Sequence[int], batch_size: int
) -> list[int]:
    """Return the clients among the ``available`` ones that can train ``entry``."""
    return [client for client in available if clients[client].runs(entry, batch_size)]


def _macs_limits(config: ClientsConfig, seed: int) -> list[int | None]:
    values = [parse_quantity(text) for text in config.max_macs]
    if not values:
        return [None if config.macs_cap is None else parse_quantity(config.macs_cap)] * config.count
    stream = numpy_stream(seed, "capabilities")
    drawn = stream.random(config.count)
    if config.macs_distribution == "listed":
        chosen = [values[client % len(values)] for client in range(config.count)]
    elif config.macs_distribution == "tiers":
        chosen = [values[int(share * len(values))] for share in drawn]
    elif config.macs_distribution == "uniform":
        chosen = [round(values[0] + share * (values[1] - values[0])) for share in drawn]
    elif config.macs_distribution == "zipf-ranks":
        low, high = values
        chosen = _zipf_ranks(drawn, stream.random(config.count), low, high, config.macs_exponent)
    else:
        low, high = values
        chosen = [round(_zipf(share, low, high, config.macs_exponent)) for share in drawn.tolist()]
    cap = max(chosen) if config.macs_cap is None else parse_quantity(config.macs_cap)
    return [min(macs, cap) for macs in chosen]


def _zipf(share: float, low: float, high: float, exponent: float) -> float:
    """Return the value below which ``share`` of a density proportional to c^-exponent on [low, high] lies."""
    power = 1 - exponent
    if power == 0:
        return float(low * (high / low) ** share)
    # Relative to low: powers of MACs would lose digits.
    return float(low * (1 + share * ((high / low) ** power - 1)) ** (1 / power))


def _zipf_ranks(shares: FloatArray, beside: FloatArray, low: int, high: int, exponent: float) -> list[int]:
    """Return limits on compute, one for each of the ``shares``, drawn by Zipf's probabilities of their levels.

    There are as many levels as limits, evenly spaced from ``low`` to ``high``; the rth has probability r^-s / Σ j^-s.
    ``shares`` in [0, 1) choose the level, and ``beside`` in [0, 1) moves the limit by up to half a step from it. This
    is how FEAST's own code draws them.
    """
    probabilities = np.arange(1, len(shares) + 1, dtype=np.float64) ** -exponent
    ends = np.cumsum(probabilities) / probabilities.sum()
    levels = np.searchsorted(ends[:-1], shares, side="right")
    step = (high - low) / max(1, len(shares) - 1)
    limits = np.clip(low + (levels + beside - 0.5) * step, low, high)
    return [round(limit) for limit in limits.tolist()]


def _latency_limits(config: ClientsConfig, space: SearchSpace, texts: Sequence[str]) -> list[LatencyLimit]:
    if not texts or config.latency_table is None:
        return []
    cost = read_latency(Path(config.latency_table), space)
    return [LatencyLimit(parse_milliseconds(text), cost, space) for text in texts]


def _listed_in_file(path: Path, config: ClientsConfig, space: SearchSpace) -> list[Capability]:
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if len(lines) != config.count:
        raise UserError(
            f"{path} describes {counted(len(lines), 'client')} and clients.count is {config.count}; make them alike"
        )
    cost = None if config.latency_table is None else read_latency(Path(config.latency_table), space)
    result = []
    for number, line in enumerate(lines, 1):
        fields = _limits_of(f"{path}:{number}", line)
        latency = None
        if "latency" in fields:
            if cost is None:
                raise UserError(f"{path}:{number} has a latency; say by which {option('clients.latency-table')}")
            latency = LatencyLimit(parse_milliseconds(fields["latency"]), cost, space)
        macs, memory = (parse_quantity(fields[name]) if name in fields else None for name in ("macs", "memory"))
        result.append(Capability(macs, memory, latency))
    return result


def _limits_of(where: str, line: str) -> Mapping[str, str]:
    fields = parse_json(line, where)
    if not isinstance(fields, dict) or not fields.keys() <= set(_LIMITS):
        raise UserError(f'{where} must be an object of {", ".join(_LIMITS)}, e.g. {{"macs": "60M", "latency": "5ms"}}')
    return {name: str(value) for name, value in fields.items()}


@functools.lru_cache(maxsize=4096)
def _latency(cost: AdditiveCost, space: SearchSpace, architecture: Architecture) -> float:
    return float(cost.of(space, encode(space, architecture)[None])[0])
