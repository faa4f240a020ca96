"""Single steps, run at once or recorded and replayed."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.networks.spaces import SMALL_RESNET
from helpers.runs.federation import MICRO, micro_recipe, random_images
from helpers.runs.simulation import (
    largest,
    micro_task,
    random_architectures,
    random_tensors,
    same_bytes,
    smallest,
    train_client,
)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.networks.weights import network_with
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.clients.cuda_graphs import CudaGraphStep, RecordingError
from fedpareto.training.clients.local_steps import LocalModel, make_step
from fedpareto.training.clients.loss import ClientLoss
from fedpareto.training.clients.step import EagerStep
from fedpareto.training.clients.trainer import LocalRecipe, LocalTrainer, make_optimizer
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.execution import Precision
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.images import ImageSet
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.execution.profile import Profile
from fedpareto.training.local_objective import CoTraining, LocalObjective, PathSampling
from fedpareto.training.messages import Task

_CPU = torch.device("cpu")
_NAN = float("nan")


class _Rerun:
    """Records work by keeping it; a replay runs it again and leaves its result where the first one was."""

    def __init__(self, warm_ups: int = 0) -> None:
        self._warm_ups = warm_ups
        self.recorded = self.replayed = 0

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        for _ in range(self._warm_ups):
            work()
        result = work()
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            result.copy_(work())

        return result, replay


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operation as a graph does: numbers as they were then, tensors by the memory they lie in."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        self._operations.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self._operations:
            again = func(*args, **kwargs)
            for before, after in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(before, Tensor):
                    before.copy_(after)


class _Taping:
    """Records the operations of work."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        tape = _Tape()
        with tape:
            result = work()
        return result, tape.replay


def _clients(space: SearchSpace) -> list[tuple[Task, ImageSet]]:
    """Clients of several networks in turn, no two with the same learning rate."""
    chosen = [largest(space), smallest(space), largest(space), *random_architectures(1, space=space), smallest(space)]
    return [
        (
            micro_task(
                architecture,
                random_tensors(number, space),
                space,
                client=number,
                learning_rate=0.01 + 0.013 * number,
                seed=number,
                epochs=2,
            ),
            random_images(16, seed=number),
        )
        for number, architecture in enumerate(chosen)
    ]


@pytest.mark.parametrize(
    ("space", "client", "fused"),
    [
        (MICRO, {"momentum": 0.9, "weight_decay": 0.05, "clip": 0.5}, True),
        (MICRO, {"momentum": 0.9, "weight_decay": 0.05, "clip": 0.5}, False),
        (MICRO, {"momentum": 0.0, "clip": 0.0}, True),
        (SMALL_RESNET, {"momentum": 0.9}, True),
    ],
    ids=["all", "not-fused", "plain", "resnet"],
)
def test_replayed_steps_train_to_the_bytes_of_eager_ones(
    space: SearchSpace, client: dict[str, float], fused: bool
) -> None:
    recipe, recorder = micro_recipe(space, **client), _Rerun(warm_ups=3)
    eager = LocalTrainer(recipe, Profile(), _CPU)
    replayed = LocalTrainer(recipe, Profile(graphs=True), _CPU, recorder)
    for number, (task, data) in enumerate(_clients(space), 1):
        expected, update = eager.train(task, data), replayed.train(task, data)
        assert same_bytes(dict(update.tensors), dict(expected.tensors))
        assert update.loss == expected.loss
        assert update.compute == expected.compute == 2 * 2 * 8 * macs_of(space, task.architecture)
        # Two epochs of two batches each.
        assert recorder.replayed == 4 * number
    assert recorder.recorded == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "clip",
    [0.0, 0.5],
)
def test_what_is_recorded_holds_for_every_client_its_learning_rate_included(clip: float) -> None:
    recipe = micro_recipe(momentum=0.9, weight_decay=0.05, clip=clip)
    eager = LocalTrainer(recipe, Profile(), _CPU)
    replayed = LocalTrainer(recipe, Profile(graphs=True), _CPU, _Taping())
    for task, data in _clients(MICRO):
        expected, update = eager.train(task, data), replayed.train(task, data)
        assert same_bytes(dict(update.tensors), dict(expected.tensors))
        assert update.loss == expected.loss


def test_mixed_labels_are_replayed_too() -> None:
    plain = micro_recipe()
    recipe = LocalRecipe(plain.space, plain.config, Augmentation(mixup=0.5), plain.normalisation)
    task, data = micro_task(), random_images(16)
    replayed = LocalTrainer(recipe, Profile(graphs=True), _CPU, _Rerun()).train(task, data)
    eager = train_client(task, data, recipe)
    assert same_bytes(dict(replayed.tensors), dict(eager.tensors))
    assert not same_bytes(dict(eager.tensors), dict(train_client(task, data, plain).tensors))


class _Sum:
    """A step whose loss is the sum of the images and the labels; keeps the tasks that it began."""

    logits = None

    def __init__(self) -> None:
        self.began: list[Task] = []
        self.macs = 0

    def begin(self, task: Task) -> None:
        self.began.append(task)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.macs += 5
        return images.sum() + labels.sum()


def test_a_batch_is_copied_to_where_the_record_reads_it() -> None:
    images, labels = torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)
    places = images.data_ptr(), labels.data_ptr()
    step = CudaGraphStep(_Sum(), images, labels, _Rerun())
    batch, targets = torch.full((2, 3, 4, 4), 2.0), torch.tensor([5, 7])
    assert step(batch, targets).item() == 96 * 2 + 12
    assert torch.equal(images, batch)
    assert torch.equal(labels, targets)
    assert (images.data_ptr(), labels.data_ptr()) == places
    # What was given belongs to the caller.
    images.zero_()
    assert (batch == 2).all()


def test_the_loss_of_a_replayed_step_outlives_the_next_one() -> None:
    step = CudaGraphStep(_Sum(), torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64), _Rerun())
    losses = [step(torch.full((1, 3, 2, 2), float(value)), torch.tensor([0])) for value in (1, 2, 3)]
    assert [loss.item() for loss in losses] == [12, 24, 36]


def test_a_replayed_step_begins_the_one_it_recorded() -> None:
    inner, tasks = _Sum(), [micro_task(seed=1), micro_task(seed=2)]
    step = CudaGraphStep(inner, torch.zeros(1), torch.zeros(1), _Rerun())
    for task in tasks:
        step.begin(task)
    assert inner.began == tasks


def test_a_replayed_step_counts_what_it_recorded_once_a_step() -> None:
    step = CudaGraphStep(_Sum(), torch.zeros(1), torch.zeros(1), _Rerun(warm_ups=3))
    for steps in (3, 1):
        step.begin(micro_task())
        for _ in range(steps):
            step(torch.ones(1), torch.ones(1))
        assert step.macs == 5 * steps


def test_a_batch_of_another_size_than_the_recorded_one_is_trained_without_the_record() -> None:
    recorded = torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64)
    step = CudaGraphStep(_Sum(), *recorded, _Rerun())
    step.begin(micro_task())
    assert step(torch.ones(3, 3, 2, 2), torch.ones(3, dtype=torch.int64)).item() == 36 + 3
    assert step.macs == 5
    assert not recorded[0].any()


@pytest.mark.parametrize("objective", [CoTraining, PathSampling])
def test_a_step_refuses_tasks_of_another_local_objective(objective: type[LocalObjective]) -> None:
    network = network_with(MICRO, largest(), random_tensors()).train()
    config, profile = ClientConfig(), Profile()
    optimizer, loss = make_optimizer(network, config, 0.1), ClientLoss(config, MICRO.classes, _CPU)
    step = make_step(objective, LocalModel(MICRO, largest(), network, optimizer, loss, config, profile, _CPU))
    with pytest.raises(TypeError, match=f"a step for {objective.kind}, and a task of plain"):
        step.begin(micro_task())


class _Line:
    """A linear classifier with a step of its own."""

    def __init__(self, precision: Precision = "fp32", *, fused: bool = True, **client: float) -> None:
        self.network = nn.Linear(4, 3)
        with torch.no_grad():
            for number, parameter in enumerate(self.network.parameters()):
                generator = torch.Generator().manual_seed(number)
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        config = ClientConfig(**{"momentum": 0.0, "weight_decay": 0.0, "clip": 0.0, **client})  # type: ignore[arg-type]
        optimizer = make_optimizer(self.network, config, 0.1, fused=fused)
        loss = ClientLoss(config, 3, _CPU)
        self.step = EagerStep(self.network, 12, optimizer, loss, config, Profile(precision, fused=fused), _CPU)

    def take(self, factor: float = 1.0) -> Tensor:
        images = torch.randn(8, 4, generator=torch.Generator().manual_seed(9)) * factor
        return self.step(images, torch.arange(8) % 3)

    @property
    def values(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.network.parameters()])


def test_a_step_goes_down_the_gradient_of_the_mean_loss() -> None:
    line = _Line()
    before = line.values
    images = torch.randn(8, 4, generator=torch.Generator().manual_seed(9))
    loss = nn.functional.cross_entropy(line.network(images), torch.arange(8) % 3)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(line.network.parameters()))])
    told = line.take()
    assert told.item() == loss.item()
    assert not told.requires_grad
    torch.testing.assert_close(line.values, before - 0.1 * gradient)


@pytest.mark.parametrize("clip", [0.0, 0.01])
@pytest.mark.parametrize("fused", [True, False])
def test_with_fp16_alone_a_step_of_infinite_gradients_is_skipped(fused: bool, clip: float) -> None:
    for precision in ("fp32", "bf16"):
        line = _Line(precision, fused=fused, clip=clip)
        line.take(_NAN)
        assert line.values.isnan().any()
    line = _Line("fp16", fused=fused, clip=clip)
    before = line.values
    line.take(_NAN)
    assert torch.equal(line.values, before)
    line.take()
    assert line.values.isfinite().all()
    assert not torch.equal(line.values, before)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("clip", [0.0, 0.01, 1e6])
def test_the_scale_of_fp16_gradients_does_not_reach_the_weights(fused: bool, clip: float) -> None:
    whole, half = _Line(fused=fused, clip=clip), _Line("fp16", fused=fused, clip=clip)
    before = whole.values
    for line in (whole, half):
        line.take()
    torch.testing.assert_close(half.values - before, whole.values - before, atol=1e-6, rtol=0.02)
    if clip == 0.01:
        assert (half.values - before).norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_a_step_that_begins_anew_has_forgotten_the_scale_of_gradients() -> None:
    def overflowing_factor(line: _Line) -> int:
        """Return how often the images must be doubled until a step is skipped: its scaled gradients overflow."""
        for doubled in itertools.count():
            before = line.values
            line.take(2.0**doubled)
            if torch.equal(line.values, before):
                return doubled
        raise AssertionError

    fresh = overflowing_factor(_Line("fp16"))
    line = _Line("fp16")
    for _ in range(8):
        line.take(_NAN)
    used = _Line("fp16")
    for _ in range(8):
        used.take(_NAN)
    used.step.begin(micro_task())
    assert used.step.macs == 0
    assert overflowing_factor(used) == fresh
    # Every step that was skipped has halved the scale.
    assert overflowing_factor(line) > fresh


class _Failing:
    """A recorder on a device that cannot record."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        del work
        raise self._error


def test_a_step_that_cannot_be_recorded_is_told_in_one_line_with_what_helps() -> None:
    recorder = _Failing(RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with"))
    trainer = LocalTrainer(micro_recipe(), Profile(graphs=True), _CPU, recorder)
    with pytest.raises(RecordingError) as caught:
        trainer.train(micro_task(), random_images(16))
    assert str(caught.value) == (
        "a step cannot be recorded as a graph (CUDA error: operation not permitted when stream is capturing); "
        "add --execution.graphs false to do without"
    )


def test_memory_that_runs_out_while_a_step_is_recorded_is_that() -> None:
    recorder = _Failing(torch.OutOfMemoryError("CUDA out of memory"))
    trainer = LocalTrainer(micro_recipe(), Profile(graphs=True), _CPU, recorder)
    with pytest.raises(OutOfMemoryError, match="out of memory on cpu at batch 8"):
        trainer.train(micro_task(), random_images(16))
