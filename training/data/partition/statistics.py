"""Statistics of a federation: images and classes of its clients."""

import csv
import dataclasses
import io
from collections.abc import Sequence

import numpy as np

from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.terminal.words import counted


@dataclasses.dataclass(frozen=True)
class FederationStatistics:
    """Images and classes of the clients of a federation.

    Attributes:
        names: names of the clients.
        classes: names of the classes.
        labels: every client's number of images of each class, (clients, classes).
        batch: images of a batch.
    """

    names: Sequence[str]
    classes: Sequence[str]
    labels: IntArray
    batch: int

    @property
    def images(self) -> IntArray:
        """Every client's number of images, (clients,)."""
        return np.asarray(self.labels.sum(axis=1))

    @property
    def seen(self) -> IntArray:
        """Every client's number of classes, (clients,)."""
        return np.asarray((self.labels > 0).sum(axis=1))

    def words(self) -> str:
        """One line: how many images and classes clients have, and how many clients fill no batch."""
        few = int((self.images < self.batch).sum())
        less = "each fills a batch" if not few else f"{few:,} with less than a batch of {self.batch}, who train on it"
        return (
            f"{counted(len(self.names), 'client')} of the data; images of a client: {_spread(self.images)}; classes: "
            f"{_spread(self.seen)} (least, median, most); {less}"
        )

    def csv(self) -> str:
        """A table of the clients: number, name, images, classes, and the images of every class."""
        written = io.StringIO()
        table = csv.writer(written, lineterminator="\n")
        table.writerow(["client", "name", "images", "classes", *(f"class {name}" for name in self.classes)])
        for number, (name, counts) in enumerate(zip(self.names, self.labels.tolist(), strict=True)):
            table.writerow([number, name, sum(counts), sum(map(bool, counts)), *counts])
        return written.getvalue()


def _spread(values: IntArray) -> str:
    return f"{values.min():,}, {np.median(values):,g}, {values.max():,}"
