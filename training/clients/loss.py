"""Loss of local training: cross-entropy that takes account of the frequency of each class at the client."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.training.config.client import WEIGHING, ClientConfig

#: Images that a client counts as having more of every class than it has: a class it lacks is rare, not impossible.
_UNSEEN = 1.0


class ClientLoss:
    """Cross-entropy of logits (N, classes) and labels (N,) or (N, classes), for one client after another.

    With an adjustment τ the logit of class y is raised by τ·ln π_y while a client trains, π_y the class's share of the
    client's images (Menon et al., "Long-tail learning via logit adjustment", 2021, eq. 10; by client: Zhang et al.,
    FedLC, 2022; τ = 1 is the balanced softmax of Ren et al., 2020). So networks learn to tell classes apart as if all
    were equally frequent, and the updates of clients with different classes agree better.

    With weights an image of class y counts w_y times, scaled so that the client's images count once on average. By
    inverse frequency w_y ∝ 1 / n_y, with n_y the client's images of the class; by effective number w_y ∝
    (1 − β) / (1 − β^n_y) (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", 2019, eq. 2 and 4).
    So rare classes pull as hard as frequent ones.

    Args:
        config: label smoothing, the adjustment τ, and the weights.
        classes: number of classes.
        device: device of the logits.
    """

    def __init__(self, config: ClientConfig, classes: int, device: torch.device) -> None:
        self._smoothing, self._adjustment = config.label_smoothing, config.adjustment
        # Always the same memory: a recorded step reads it where it was.
        self._shift = torch.zeros(classes, device=device) if self._adjustment else None
        self._beta = 1.0 if config.imbalance == "inverse-frequency" else config.effective_beta
        self._weights = torch.ones(classes, device=device) if config.imbalance in WEIGHING else None

    def begin(self, labels: Tensor) -> None:
        """Adjust the loss to the client whose images have these labels, int64 (images,)."""
        if self._shift is not None:
            self._shift.copy_(logit_shift(labels, len(self._shift), self._adjustment))
        if self._weights is not None:
            self._weights.copy_(class_weights(labels, len(self._weights), self._beta))

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        if self._weights is not None:
            # The library's own mean divides by a batch's weights, so that a batch of one class would lose them.
            weighted = F.cross_entropy(
                logits.float(), labels, self._weights, reduction="none", label_smoothing=self._smoothing
            )
            return weighted.mean()
        adjusted = logits if self._shift is None else logits + self._shift
        return F.cross_entropy(adjusted, labels, label_smoothing=self._smoothing)


def class_weights(labels: Tensor, classes: int, beta: float) -> Tensor:
    """Return the weight of each class (classes,), 0 of those without images; 1 on average over the images.

    Args:
        labels: classes of the client's images, int64 (images,).
        classes: number of classes.
        beta: β of effective numbers; 1 for inverse frequencies, which are their limit.
    """
    counts = torch.bincount(labels, minlength=classes).double()
    effective = counts if beta == 1 else (1 - beta**counts) / (1 - beta)
    weights = torch.where(counts > 0, 1 / effective.clamp(min=1), 0)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def logit_shift(labels: Tensor, classes: int, adjustment: float) -> Tensor:
    """Return τ·ln π (classes,), π_y = (images of class y + 1) / (all images + classes)."""
    counts = torch.bincount(labels, minlength=classes).float() + _UNSEEN
    return adjustment * torch.log(counts / counts.sum())
