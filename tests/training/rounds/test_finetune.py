"""Fine-tuning: federated averaging on one subnet's slices, and on nothing else."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import pytest
import torch
from attack_methods import HostileEngine, scaled
from helpers.runs.federation import MICRO, micro_recipe, random_images
from helpers.runs.simulation import own_memory, random_tensors, smallest

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.networks.weights import views
from fedpareto.supernet.slices import slices
from fedpareto.training.aggregation.median import Median
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import Failure, FailureKind, Task, Update
from fedpareto.training.randomness import derive_seed
from fedpareto.training.rounds.finetune import FineTuning, fine_tune

CLIENTS = 3
TUNING = FineTuning(epochs=2, lr=0.02, clients=range(CLIENTS), seed=7)


def _engine() -> InProcessEngine:
    """Return clients of 16, 24 and 32 images."""
    data = random_images(72)
    return InProcessEngine(
        data, [torch.arange(0, 16), torch.arange(16, 40), torch.arange(40, 72)], micro_recipe(), Profile()
    )


class _Failing:
    """An engine whose clients fail, all but those named."""

    def __init__(self, *well: int, kind: FailureKind = "error") -> None:
        self.well, self.kind, self.engine = well, kind, _engine()

    def available(self) -> Sequence[int]:
        return self.engine.available()

    def examples(self, client: int) -> int:
        return self.engine.examples(client)

    def run(self, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        for task in tasks:
            if task.client in self.well:
                yield from self.engine.run([task])
            else:
                yield Failure(task, self.kind, "battery empty")


def test_an_epoch_is_the_mean_of_all_clients_weighted_by_their_images() -> None:
    tensors, expected = random_tensors(), random_tensors()
    tuning = dataclasses.replace(TUNING, epochs=1)
    fine_tune(MICRO, tensors, smallest(), _engine(), tuning)
    own = views(MICRO, expected, smallest())
    tasks = [
        Task(1, client, smallest(), own, 1, 0.02, derive_seed(7, "fine-tune", 0, client)) for client in range(CLIENTS)
    ]
    answers = [own_memory(answer) for answer in _engine().run(tasks) if isinstance(answer, Update)]
    for name, tensor in views(MICRO, tensors, smallest()).items():
        mean = sum(answer.tensors[name] * answer.examples for answer in answers) / 72
        torch.testing.assert_close(tensor, mean, rtol=1e-5, atol=1e-6)


def test_only_the_slices_of_the_subnet_change() -> None:
    tensors, before = random_tensors(), random_tensors()
    fine_tune(MICRO, tensors, smallest(), _engine(), TUNING)
    own = slices(MICRO, smallest())
    for name, tensor in tensors.items():
        outside = torch.ones(tensor.shape, dtype=torch.bool)
        if name in own:
            outside[own[name]] = False
            assert not torch.equal(tensor[own[name]], before[name][own[name]])
        assert torch.equal(tensor[outside], before[name][outside])


def test_it_is_the_same_twice_and_reports_its_progress() -> None:
    first, second = random_tensors(), random_tensors()
    seen: list[tuple[str, int, int]] = []
    fine_tune(MICRO, first, smallest(), _engine(), TUNING, ProgressListener(report=lambda *what: seen.append(what)))
    fine_tune(MICRO, second, smallest(), _engine(), TUNING)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert seen == [("fine-tuning", done, 6) for done in range(1, 7)]


def test_a_client_that_fails_is_left_out() -> None:
    tensors, alone = random_tensors(), random_tensors()
    fine_tune(MICRO, tensors, smallest(), _Failing(1), TUNING)
    fine_tune(MICRO, alone, smallest(), _engine(), dataclasses.replace(TUNING, clients=[1]))
    assert all(torch.equal(tensors[name], alone[name]) for name in alone)


@pytest.mark.parametrize(("kind", "advice"), [("non-finite", "use a lower --finetune-lr"), ("lost", "search again")])
def test_a_round_in_which_all_fail_is_an_error_with_the_advice_that_fits(kind: FailureKind, advice: str) -> None:
    words = rf"all clients failed in fine-tuning \(client 0: battery empty\); {advice}"
    with pytest.raises(UserError, match=words):
        fine_tune(MICRO, random_tensors(), smallest(), _Failing(kind=kind), TUNING)


def test_the_rule_of_the_run_holds_for_its_subnets_too() -> None:
    """One of three sends a change of another size."""
    # Without the bound by steps.
    tuning = dataclasses.replace(TUNING, epochs=1, client=ClientConfig(clip=0))
    robust = dataclasses.replace(tuning, aggregator=Median, by_examples=False)
    moved = []
    for each in (tuning, robust):
        tensors, before = random_tensors(), random_tensors()
        hostile = HostileEngine(_engine(), {0}, scaled(1e4))
        fine_tune(MICRO, tensors, smallest(), hostile, each)
        moved.append(max(float((tensors[name] - before[name]).norm()) for name in tensors))
    assert moved[0] > 100 * moved[1]
