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

**The noise** is as secret as its key of 256 bits (``key.py``), so it does not come from the run's seed, which every
copy of the configuration holds. Every tensor has a stream of its own (``gaussian.py``), whose key is derived from the
run's key over the run, the round, the deviation, the tensor's name and a keyed digest of the very sums that it hides. A
round that is repeated after a crash with the same answers gives the same bytes. With other answers it has other noise,
since two sums under the same noise show their difference, and is another release, which the account (``ledger.py``)
counts, too. The noise is added in float64, and the result rounded to float32 once. numpy's logarithms and cosines may
differ in their last bit between kinds of processors, and so may the noise.

**Covered** is the supernet, after every round and whatever is computed from it alone. **Not covered**, as no noise is
added to them, and so withheld unless ``privacy.statistics`` is exact: the clients' training losses, example counts and
failures, the share of clipped updates, and the normalisation, calibration and accuracies of clients' images. In their
place are constants, or the validation images of a simulation, which belong to no client (``trackers/withheld.py``,
``data/run_images.py``). Fine-tuning has no noise. The server itself sees every update. What time the noise takes does
not depend on what it hides, but rounding to floats is not proven to be harmless, only made hard to use.
"""

import dataclasses
import hmac
import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedpareto.training.messages import Update
from fedpareto.training.privacy.gaussian import gaussian_pieces
from fedpareto.training.privacy.key import derive


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


def sums_digests(key: bytes, sums: Iterable[tuple[str, Tensor]]) -> dict[str, bytes]:
    """Keyed digests of a round's sums without noise, by tensor: they tell equal sums, and only whoever has the key."""
    return {name: hmac.digest(derive(key, "digest", name), _values(each).data, "sha256") for name, each in sums}


@dataclasses.dataclass(frozen=True)
class Noise:
    """Gaussian noise of a round, which is added to sums.

    Attributes:
        key: the run's secret of 256 bits.
        run: identity of the run.
        round: number of the round.
        deviation: standard deviation z·C·w_max on the weighted sum.
        digests: keyed digests of the round's sums, by tensor.
    """

    key: bytes = dataclasses.field(repr=False)
    run: str
    round: int
    deviation: float
    digests: Mapping[str, bytes]

    def __call__(self, name: str, sums: Tensor) -> None:
        """Add noise to ``sums`` in place; whole tensors, so that the draw does not depend on how they overlap."""
        parts = (self.run, self.round, self.deviation.hex(), name, self.digests[name])
        values = _values(sums).reshape(-1)
        start = 0
        for piece in gaussian_pieces(derive(self.key, "noise", *parts), len(values)):
            part = values[start : start + len(piece)]
            # In float64, and rounded once; what is too large for that is found when the merge is checked.
            with np.errstate(over="ignore"):
                part[:] = part + self.deviation * piece
            start += len(piece)
        sums.copy_(torch.from_numpy(values).view(sums.shape))


def _values(sums: Tensor) -> NDArray[np.float32]:
    """Values of a tensor in the order of its shape, whatever its memory's; the tensor's own memory where that fits."""
    values: NDArray[np.float32] = sums.detach().cpu().contiguous().numpy()
    return values
