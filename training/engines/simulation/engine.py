"""The in-process engine: clients run in this process, several at once where that is faster."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import torch
from torch import Tensor

from fedpareto.training.clients.cuda_graphs import Recorder
from fedpareto.training.clients.trainer import LocalRecipe, LocalTrainer
from fedpareto.training.data.images import ImageSet
from fedpareto.training.evaluation.calibration import client_statistics
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import CalibrationTask, Failure, Statistics, Task, Update


class InProcessEngine:
    """Simulates a federation on one machine; answers come in the order of the tasks.

    Clients at once are threads, not processes: torch computes outside Python's lock, and threads share the images
    and the supernet. On a GPU each has a stream of its own.

    Args:
        data: all training images, on the device that trains.
        partition: for every client, the indices of its images.
        recipe: the local training.
        profile: how it is computed, and how many clients at once.
        recorder: makes what records the steps of one of them; CUDA graphs when left out.
    """

    def __init__(
        self,
        data: ImageSet,
        partition: Sequence[Tensor],
        recipe: LocalRecipe,
        profile: Profile,
        recorder: Callable[[], Recorder] | None = None,
    ) -> None:
        self._data, self._partition, self._recipe, self._profile = data, partition, recipe, profile
        # One more than there are workers: it is filled while another's update waits to be merged.
        count = 1 if profile.workers == 1 else profile.workers + 1
        self._trainers = [
            LocalTrainer(recipe, profile, data.images.device, recorder() if recorder else None) for _ in range(count)
        ]

    def available(self) -> Sequence[int]:
        """Return all clients: nobody is ever absent."""
        return range(len(self._partition))

    def examples(self, client: int) -> int:
        """Return how many training images a client has."""
        return len(self._partition[client])

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        """Yield one update for every task; it may be overwritten once the next one is asked for."""
        if len(self._trainers) > 1:
            yield from self._run_several(tasks)
            return
        before = torch.get_num_threads()
        torch.set_num_threads(self._profile.threads)
        try:
            for task in tasks:
                yield self._trainers[0].train(task, self._images(task.client))
        finally:
            torch.set_num_threads(before)

    def _run_several(self, tasks: Iterable[Task]) -> Iterator[Update]:
        cancel, idle = Event(), list(self._trainers)
        started: deque[tuple[LocalTrainer, Future[Update]]] = deque()
        threads = self._profile.threads
        with ThreadPoolExecutor(self._profile.workers, "client", lambda: torch.set_num_threads(threads)) as pool:
            try:
                for task in tasks:
                    if not idle:
                        trainer, answer = started.popleft()
                        yield answer.result()
                        idle.append(trainer)
                    trainer = _taken(idle, task)
                    started.append(
                        (trainer, pool.submit(trainer.train, task, self._images(task.client), cancel.is_set))
                    )
                for _, answer in started:
                    yield answer.result()
            finally:
                # Whatever ended the round early: nobody waits for the clients that still train.
                cancel.set()
                pool.shutdown(wait=False, cancel_futures=True)
                # What a worker set for itself would also be the default of every later thread.
                torch.set_num_threads(torch.get_num_threads())

    def calibrate(self, tasks: Iterable[CalibrationTask]) -> Iterator[Statistics | Failure]:
        """Yield the statistics of every task's client, in the order of the tasks."""
        for task in tasks:
            yield client_statistics(self._recipe.space, task, self._images(task.client), self._recipe.normalisation)

    def _images(self, client: int) -> ImageSet:
        return self._data.subset(self._partition[client])


def _taken(idle: list[LocalTrainer], task: Task) -> LocalTrainer:
    """Take a trainer out of the idle ones: one that has built the task's network, if any has."""
    able = (index for index, trainer in enumerate(idle) if trainer.holds(task.architecture, type(task.objective)))
    return idle.pop(next(able, -1))
