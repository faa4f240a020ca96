"""Measures of a classifier from one pass over images: what it confuses, how sure it is, how clients fare with it."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.supernet.arrays import FloatArray, IntArray
from fedpareto.supernet.common.terminal.words import counted

#: Bins of equal width that confidences are put into (Guo et al., 2017).
BINS = 15

#: A class counts as named if it is among the so many likeliest; told only of problems with more classes.
_TOP = 5


@dataclasses.dataclass(frozen=True)
class ClientSpread:
    """Spread of accuracy over clients, each counting the same: how fairly a network treats them.

    Attributes:
        clients: number of clients that could be measured.
        mean: their mean accuracy.
        worst_decile: mean accuracy of the tenth that fares worst, at least one client.
        deviation: standard deviation of their accuracies.
    """

    clients: int
    mean: float
    worst_decile: float
    deviation: float

    @classmethod
    def of(cls, accuracies: Sequence[float] | FloatArray) -> "ClientSpread | None":
        """Spread of the clients' accuracies; None without a client."""
        ascending = np.sort(np.asarray(accuracies, np.float64))
        if not len(ascending):
            return None
        worst = ascending[: math.ceil(len(ascending) / 10)]
        return cls(len(ascending), float(ascending.mean()), float(worst.mean()), float(ascending.std()))


@dataclasses.dataclass(frozen=True)
class Measures:
    """Measures of a network on images, beside its accuracy.

    Attributes:
        balanced: balanced accuracy: mean recall of the classes that have images.
        macro_f1: mean F1 of the classes that have images or are named.
        top5: share of images whose class is among the five likeliest; None with fewer than six classes.
        loss: mean cross-entropy; None where it is not finite.
        ece: expected calibration error (Guo et al., 2017): mean distance of confidence and accuracy over 15 bins; None
            where the loss is not finite.
        majority: share of the images that are of the most frequent class: what naming it always would reach.
        named: number of classes that are named at all.
        recall: of each class the share of its images that are recognised; None of a class without images.
    """

    balanced: float
    macro_f1: float
    top5: float | None
    loss: float | None
    ece: float | None
    majority: float
    named: int
    recall: tuple[float | None, ...]


@dataclasses.dataclass(frozen=True)
class PredictionCounts:
    """Counts of a network's predictions, which add up over batches.

    Attributes:
        confusion: number of images by class (rows) and class that is named (columns), int64 (classes, classes).
        in_top: number of images whose class is among the five likeliest.
        loss: summed cross-entropy.
        bins: number of images, summed confidence and number of right answers of each bin, float64 (3, bins).
    """

    confusion: IntArray
    in_top: int
    loss: float
    bins: FloatArray

    @classmethod
    def over(cls, batches: Iterable[tuple[Tensor, Tensor]]) -> Self:
        """Add up the counts of one or more batches of logits (N, classes) and labels (N,)."""
        confusion: Tensor | None = None
        in_top = loss = bins = torch.zeros(())
        for logits, labels in batches:
            classes, device = logits.shape[1], logits.device
            if confusion is None:
                confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
                in_top, loss = torch.zeros((2,), dtype=torch.float64, device=device).unbind()
                bins = torch.zeros(3, BINS, dtype=torch.float64, device=device)
            named = logits.argmax(dim=1)
            confusion += torch.bincount(labels * classes + named, minlength=classes * classes)
            in_top = in_top + (logits.topk(min(_TOP, classes)).indices == labels[:, None]).any(dim=1).sum()
            exact = logits.double()
            loss = loss + F.cross_entropy(exact, labels, reduction="sum")
            bins = bins + _binned(exact, named == labels)
        if confusion is None:
            raise ValueError("no images to measure on")
        side = math.isqrt(len(confusion))
        return cls(confusion.reshape(side, side).cpu().numpy(), int(in_top), float(loss), bins.cpu().numpy())

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of images that are classified rightly."""
        return int(self.confusion.trace()) / self.images

    @property
    def recall(self) -> FloatArray:
        """Share of each class's images that are recognised, (classes,); NaN of a class without images."""
        return _ratio(self.confusion.diagonal(), self.confusion.sum(axis=1))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: Σ_b |accuracy_b − confidence_b| · images_b / images."""
        _, confidence, right = self.bins
        return float(np.abs(right - confidence).sum() / self.images)

    def measures(self) -> Measures:
        """Measures from the counts."""
        recall, images = self.recall, self.confusion.sum(axis=1)
        named = self.confusion.sum(axis=0)
        known = images + named > 0
        finite = math.isfinite(self.loss)
        return Measures(
            balanced=float(np.nanmean(recall)),
            macro_f1=float((2 * self.confusion.diagonal()[known] / (images + named)[known]).mean()),
            top5=self.in_top / self.images if len(images) > _TOP else None,
            loss=self.loss / self.images if finite else None,
            ece=self.calibration_error if finite else None,
            majority=int(images.max()) / self.images,
            named=int((named > 0).sum()),
            recall=tuple(None if math.isnan(share) else float(share) for share in recall),
        )


def client_accuracies(recall: FloatArray, labels: IntArray) -> FloatArray:
    """Accuracies that clients can expect, (measured clients,): recalls weighed by their classes' shares.

    It is exact if a client's images differ from the measured ones in the shares of classes alone. Classes that were not
    measured are left out, and clients that have no others.

    Args:
        recall: of each class, (classes,); NaN where it was not measured.
        labels: number of images of each class, (clients, classes).
    """
    measured = ~np.isnan(recall)
    own = labels[:, measured]
    own = own[own.sum(axis=1) > 0]
    accuracies: FloatArray = own @ recall[measured] / own.sum(axis=1)
    return accuracies


def doubts(accuracy: float, measures: Measures) -> str | None:
    """Reason, in words, why an accuracy says little; None where nothing is odd."""
    if measures.named == 1 and len(measures.recall) > 1:
        return f"it names one class for every image (balanced accuracy {measures.balanced:.1%})"
    if accuracy <= measures.majority:
        return (
            f"it is no better than naming the most frequent class, which {measures.majority:.1%} of the images are "
            f"(balanced accuracy {measures.balanced:.1%}, {counted(measures.named, 'class')} named)"
        )
    return None


def _binned(logits: Tensor, right: Tensor) -> Tensor:
    """Number of images, summed confidence and number of right answers of each bin, float64 (3, bins)."""
    confidence = logits.softmax(dim=1).amax(dim=1)
    # Bins are open below and closed above; NaN, where the loss is none either, goes into the first.
    place = (torch.nan_to_num(confidence) * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
    rows = torch.stack([torch.ones_like(confidence), confidence, right.double()])
    return torch.zeros(3, BINS, dtype=torch.float64, device=logits.device).index_add(1, place, rows)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> FloatArray:
    ratio: FloatArray = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return ratio
