"""The in-process engine: clients run one after another in this process."""

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from training.client import Recipe, train_client
from training.data.images import ImageSet
from training.messages import Failure, Task, Update


class InProcessEngine:
    """Simulates a federation on one machine; answers come in the order of the tasks.

    Args:
        data: all training images, on the device that trains.
        partition: for every client, the indices of its images.
        recipe: the local training.
    """

    def __init__(self, data: ImageSet, partition: Sequence[Tensor], recipe: Recipe) -> None:
        self._data, self._partition, self._recipe = data, partition, recipe

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        """Yield one update for every task."""
        for task in tasks:
            yield train_client(task, self._data.subset(self._partition[task.client]), self._recipe)
