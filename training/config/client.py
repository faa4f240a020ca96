"""Settings of the local training of a client."""

import dataclasses
from typing import Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.bounds import bounded, check_bounds
from fedpareto.training.config.data import DEFAULT_BATCH

LearningRateSchedule = Literal["constant", "cosine", "step"]

#: How a client trains classes of which it has few images, see ``ClientConfig``.
Imbalance = Literal["none", "inverse-frequency", "effective-number", "adjustment"]

#: Those that weigh images.
WEIGHING: tuple[Imbalance, ...] = ("inverse-frequency", "effective-number")

#: Of τ: beyond it the shift of logits is all there is to a loss.
_LARGEST_ADJUSTMENT = 10.0


@dataclasses.dataclass(frozen=True)
class ClientConfig:
    """Local training of a client.

    Attributes:
        epochs: passes over its images in a round.
        batch_size: images a step; the data set's own when left out (64, for the digits 16).
        lr: learning rate of the first round.
        lr_schedule: how the rate falls over the rounds.
        momentum: of SGD.
        weight_decay: on convolutions and linear layers; norms and biases have none unless decay_all is on.
        clip: largest norm of all gradients; 0 for none.
        label_smoothing: share of the target spread over all classes.
        logit_adjustment: τ; every logit is raised by τ times the logarithm of its class's share of the client's images
            while it trains, so that clients with other classes agree (FedLC); 0 for none, and when left out 1 with
            method fedpareto, 0 with others.
        decay_all: weight decay on norms and biases, too, as DeepFedNAS, SuperFedNAS and FEAST train.
        imbalance: what a client does about classes it has few images of, for a higher balanced accuracy: none; weights
            on images, by inverse frequency or by effective number (Cui et al., 2019); or the adjustment of logits, τ 1.
            When left out what logit_adjustment says.
        effective_beta: β of effective numbers; 0 weighs all alike, towards 1 the weights are inverse frequencies.
    """

    epochs: int = bounded(5, above=0)
    batch_size: int | None = bounded(None, least=2)
    lr: float = bounded(0.1, above=0)
    lr_schedule: LearningRateSchedule = "cosine"
    momentum: float = bounded(0.9, least=0, below=1)
    weight_decay: float = bounded(5e-4, least=0)
    clip: float = bounded(10.0, least=0)
    label_smoothing: float = bounded(0.0, least=0, below=1)
    logit_adjustment: float | None = bounded(None, least=0, most=_LARGEST_ADJUSTMENT)
    decay_all: bool = False
    imbalance: Imbalance | None = None
    effective_beta: float = bounded(0.99, least=0, below=1)

    def __post_init__(self) -> None:
        check_bounds(self, "client")
        self._check_imbalance()
        if self.decay_all and not self.weight_decay:
            raise UserError("client.decay_all is true and client.weight_decay 0, which decays nothing; leave one out")

    def _check_imbalance(self) -> None:
        chosen, adjustment = self.imbalance, self.logit_adjustment
        if chosen is None or adjustment is None or (chosen == "adjustment") == (adjustment > 0):
            return
        fits = "a positive τ" if chosen == "adjustment" else "0"
        raise UserError(
            f"client.imbalance is {chosen} and client.logit_adjustment {adjustment:g}, which goes with {fits} alone: "
            "leave client.logit_adjustment out"
        )

    @property
    def batch(self) -> int:
        """Images a step."""
        return DEFAULT_BATCH if self.batch_size is None else self.batch_size

    @property
    def adjustment(self) -> float:
        """The adjustment τ of logits."""
        return 0.0 if self.logit_adjustment is None else self.logit_adjustment
