"""Settings of a real federation, whose clients are behind Flower's SuperLink."""

import dataclasses
import math
from typing import Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.bounds import bounded, check_bounds

WireDtype = Literal["fp32", "bf16"]

#: Images a client may ever claim to hold, and classes they may have: what no operator can raise.
MOST_IMAGES, MOST_CLASSES = 1 << 30, 100_000


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
        clients: JSON Lines of which node is which client, as deploy/register-node writes them; a client's number is
            taken from no other node. When left out the first node that says a number keeps it for the whole run.
        max_examples: most images that a client is believed to have; who says more takes no part.
        max_ratio: the same, in medians of the connected clients, once there are three.
        max_classes: most classes of all clients together; the client with most names of its own takes no part.
    """

    address: str = "127.0.0.1:8000"
    root_certificates: str | None = None
    insecure: bool = False
    min_clients: int | None = bounded(None, least=1)
    patience: float = bounded(300.0, above=0, below=math.inf, hint=" and finite, in seconds")
    deadline: float = bounded(600.0, above=0, below=math.inf, hint=" and finite, in seconds")
    quorum: float = bounded(0.5, above=0, most=1)
    retries: int = bounded(2, least=0)
    wire_dtype: WireDtype = "fp32"
    clients: str | None = None
    max_examples: int = bounded(10_000_000, least=1, most=MOST_IMAGES)
    max_ratio: float = bounded(100.0, least=1, below=math.inf)
    max_classes: int = bounded(1000, least=1, most=MOST_CLASSES)

    def __post_init__(self) -> None:
        host, colon, port = self.address.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
            raise UserError(f"flower.address is {self.address!r}; it must be host:port, e.g. 127.0.0.1:8000")
        check_bounds(self, "flower")
