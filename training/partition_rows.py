"""The rows that flwr-datasets' partitioners divide: labels, of which a part is only its positions.

Its own module because the library behind it takes seconds to import.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from datasets import Dataset

_POSITION = "position"


class LabelRows(Dataset):
    """Rows of labels in order; selecting some gives a list of their positions.

    The library's own selection builds, fingerprints and reads back a table a client: milliseconds each, which are
    most of a minute for 10,000 clients.
    """

    @classmethod
    def of(cls, labels: Sequence[int], positions: Sequence[int] | None = None) -> Self:
        """Return the rows of ``labels``, whose positions are 0, 1, … unless given."""
        rows: Self = cls.from_dict({"label": list(labels)})
        rows._positions = np.arange(len(labels)) if positions is None else np.asarray(positions)
        return rows

    def select(self, indices: Iterable[int], *args: Any, **options: Any) -> list[int]:
        """Return the positions of the rows at ``indices``; all other arguments are about storage."""
        del args, options
        chosen: list[int] = self._positions[np.fromiter(indices, dtype=np.int64)].tolist()
        return chosen

    def sort(self, *args: Any, **options: Any) -> Self:
        """Return the rows in the order of their labels, equal ones in their old order."""
        del args, options
        labels = np.asarray(self["label"])
        order = np.argsort(labels, kind="stable")
        return type(self).of(labels[order].tolist(), self._positions[order].tolist())
