"""Mechanism of central differential privacy for clients (DP-FedAvg): updates are clipped, and their sum gets noise.

**The mechanism** (McMahan et al. 2018, for slices that overlap). Client i of a round trains a slice of the supernet
and answers with Δ_i = trained − sent. The server computes, entry by entry,

    x ← x + (Σ_i w_i·pad(min(1, C/‖Δ_i‖)·Δ_i) + N(0, (z·C·w_max)²)) / W

over the accepted clients, where pad() puts zeros outside the slice, ‖·‖ is the L2 norm over all tensors of the slice
together, w_max is the largest weight of the round, and W is the sum of the weights of the *planned* clients whose slice
covers the entry. Every entry that a planned client covers has noise, whether or not it answered; all others keep their
bytes.

**Sensitivity.** Neighbours are two federations that differ in one client: its updates are there, or are zero throughout
(dp-accounting's REPLACE_SPECIAL); a client that failed has an update of zero. Padding keeps the norm. So one client
changes the sum by at most w_i·C ≤ w_max·C in L2, however slices overlap, and can reach that. The drawn clients, their
architectures and their weights, and so W and the entries with noise, follow from the configuration alone. They do not
depend on images, and not on failures either: the curriculum of a private run counts clients that failed as trained, or
it would reveal the failures. Dividing by W, the server's momentum and all training that follows are post-processing.
Exchanging a client's images for any others changes the sum by twice as much: for that relation take the ε of half the
noise.

**The account** (``accountant.py``) takes the draws of clients as known. It does not rely on their secrecy
("amplification by subsampling"): metrics.jsonl names the clients of every round, clients know when they were drawn, and
the curriculum decides by client, which the theorems on sampling rule out.

**The noise** is as secret as its key, so it does not come from the run's seed, which every copy of the configuration
holds. Its generator is seeded by the key, the round, the tensor and a digest of the very sums it hides. A round that
is repeated after a crash with the same answers gives the same bytes. With other answers it has other noise, since two
sums under the same noise show their difference. Clients that were sent both have seen a release that is not in the
account. The generator is not a cryptographic one, and sums are rounded to float32.

**Not covered**, as no noise is added to them, and so withheld unless ``privacy.statistics`` is exact: the clients'
training losses, example counts and failures, the share of clipped updates, and the normalisation, calibration and
accuracies of clients' images. In their place are constants, or the validation images of a simulation, which belong to
no client (``trackers/withheld.py``, ``data/run_images.py``). Fine-tuning has no noise. The server itself sees every
update.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fedpareto.training.messages import Update
from fedpareto.training.randomness import torch_stream


def deltas(update: Update) -> Iterator[tuple[str, Tensor]]:
    """Yield a client's change Δ = trained − sent, one tensor at a time."""
    for name, sent in update.task.tensors.items():
        yield name, update.tensors[name].to(sent.device) - sent


def update_norm(update: Update) -> float:
    """Return the L2 norm of Δ over all tensors together, in float64; not finite where Δ is not."""
    squares = [torch.linalg.vector_norm(delta, dtype=torch.float64).square() for _, delta in deltas(update)]
    return math.sqrt(float(torch.stack(squares).sum()))


def clip_scale(norm: float, clip: float) -> float:
    """Return the factor that brings an update of a finite ``norm`` to at most ``clip``."""
    return min(1.0, clip / norm) if norm else 1.0


@dataclasses.dataclass(frozen=True)
class Noise:
    """Gaussian noise of a round, which is added to sums.

    Attributes:
        key: the run's secret.
        round: number of the round.
        deviation: standard deviation z·C·w_max on the weighted sum.
    """

    key: int
    round: int
    deviation: float

    def __call__(self, name: str, sums: Tensor) -> None:
        """Add noise to ``sums`` in place; whole tensors, so that the draw does not depend on how they overlap."""
        values = sums.cpu().contiguous()
        digest = hashlib.blake2b(values.numpy().data, digest_size=16).hexdigest()
        generator = torch_stream(self.key, "noise", self.round, name, digest)
        sums.add_(torch.randn(sums.shape, generator=generator).to(sums.device), alpha=self.deviation)
