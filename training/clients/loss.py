"""Loss of local training: cross-entropy on logits that are adjusted by the frequency of each class at the client."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.training.config.client import ClientConfig

#: Images that a client counts as having more of every class than it has: a class it lacks is rare, not impossible.
_UNSEEN = 1.0


class ClientLoss:
    """Cross-entropy of logits (N, classes) and labels (N,) or (N, classes), for one client after another.

    With an adjustment τ the logit of class y is raised by τ·ln π_y while a client trains, π_y the class's share of the
    client's images (Menon et al., "Long-tail learning via logit adjustment", 2021, eq. 10; by client: Zhang et al.,
    FedLC, 2022; τ = 1 is the balanced softmax of Ren et al., 2020). So networks learn to tell classes apart as if all
    were equally frequent, and the updates of clients with different classes agree better.

    Args:
        config: label smoothing and the adjustment τ.
        classes: number of classes.
        device: device of the logits.
    """

    def __init__(self, config: ClientConfig, classes: int, device: torch.device) -> None:
        self._smoothing, self._adjustment = config.label_smoothing, config.adjustment
        # Always the same memory: a recorded step reads it where it was.
        self._shift = torch.zeros(classes, device=device) if self._adjustment else None

    def begin(self, labels: Tensor) -> None:
        """Adjust the loss to the client whose images have these labels, int64 (images,)."""
        if self._shift is not None:
            self._shift.copy_(logit_shift(labels, len(self._shift), self._adjustment))

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        adjusted = logits if self._shift is None else logits + self._shift
        return F.cross_entropy(adjusted, labels, label_smoothing=self._smoothing)


def logit_shift(labels: Tensor, classes: int, adjustment: float) -> Tensor:
    """Return τ·ln π (classes,), π_y = (images of class y + 1) / (all images + classes)."""
    counts = torch.bincount(labels, minlength=classes).float() + _UNSEEN
    return adjustment * torch.log(counts / counts.sum())
