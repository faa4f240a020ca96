"""What a run says of the federation behind a SuperLink."""

import dataclasses
import math
from typing import Literal

from fedpareto.supernet.common.errors import UserError

WireDtype = Literal["fp32", "bf16"]


@dataclasses.dataclass(frozen=True)
class FlowerConfig:
    """The federation behind a SuperLink of Flower, for the engine flower.

    Attributes:
        address: host:port of the SuperLink's own API, which is for its host alone.
        root_certificates: PEM file of the authority that signed the SuperLink's certificate.
        insecure: speak without TLS to a SuperLink on this host.
        min_clients: connected clients a run waits for before its first round; all when left out.
        patience: seconds to wait for clients to connect, and for a lost SuperLink to come back.
        deadline: seconds a client has for its answer.
        quorum: share of a round's clients whose answers make a round.
        retries: times those that failed are asked again when the quorum is not reached.
        wire_dtype: type of tensors on the wire; with bf16 clients send what changed, half the bytes.
    """

    address: str = "127.0.0.1:8000"
    root_certificates: str | None = None
    insecure: bool = False
    min_clients: int | None = None
    patience: float = 300.0
    deadline: float = 600.0
    quorum: float = 0.5
    retries: int = 2
    wire_dtype: WireDtype = "fp32"

    def __post_init__(self) -> None:
        host, colon, port = self.address.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
            raise UserError(f"flower.address is {self.address!r}; it must be host:port, e.g. 127.0.0.1:8000")
        for name in ("patience", "deadline"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"flower.{name} is {getattr(self, name)}; it must be positive and finite, in seconds")
        if not 0 < self.quorum <= 1:
            raise UserError(f"flower.quorum is {self.quorum}; it must be above 0 and at most 1")
        if self.retries < 0:
            raise UserError(f"flower.retries is {self.retries}; it must not be negative")
        if self.min_clients is not None and self.min_clients < 1:
            raise UserError(f"flower.min_clients is {self.min_clients}; it must be at least 1")
