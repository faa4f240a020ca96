"""Methods that the benchmark of a GPU trains one after another: equal compute, shares of the time, what goes wrong."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import gpu_method
import pytest
import torch
from gpu import STUDY
from gpu_federation import Federated, Images, federation, fitted
from gpu_method import Contender, Diary, adapted, piloted, replanned, train_for_compute, train_for_time
from gpu_report import Training
from gpu_study import Contest, read_contest
from gpu_training import Aim, finding, one_after_another
from helpers.runs.federation import random_images, write_space
from local_training import on_device
from time_share import Until

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.execution.profile import Profile
from fedpareto.training.trackers.records import RoundRecord

_CPU = torch.device("cpu")
_PROFILE = Profile()
_BATCH = 4


@pytest.fixture(name="contest")
def _contest(tmp_path: Path) -> Contest:
    """The study of the benchmark on a tiny space, with few clients."""
    text = STUDY.read_text().replace("mobilenet-cifar", str(write_space(tmp_path)))
    text = text.replace("count: 20, per_round: 8", "count: 5, per_round: 3").replace("crop: 4", "crop: 1")
    path = tmp_path / "study.yaml"
    path.write_text(text.replace("[25M, 60M, 150M]", "[100K, 200K]"))
    return read_contest(path).with_batch(_BATCH)


@pytest.fixture(name="federated")
def _federated(contest: Contest) -> Federated:
    return federation(contest, Images(random_images(200), random_images(40, seed=1)), _CPU)


def _contender(contest: Contest, federated: Federated, number: int = 0) -> Contender:
    trial = contest.trials[number]
    config = adapted(trial.config, federated, _PROFILE)
    return Contender(trial.label, config, federated.engine(config, _PROFILE, None))


def _tensors(contest: Contest, federated: Federated) -> Tensors:
    return on_device(federated.initial(contest.config), _CPU, _PROFILE)


def _later() -> Until:
    return Until(time.monotonic() + 600)


def test_the_federation_is_that_of_the_study(contest: Contest, federated: Federated) -> None:
    assert federated.space.classes == 4
    assert (federated.clients, len(federated.members)) == (5, 5)
    positions = torch.cat(list(federated.members)).tolist()
    # A twentieth of each class is held out; every other image has one owner, and a batch at least.
    assert len(set(positions)) == len(positions) == 200 - len(federated.validation.held_out) == 192
    assert min(map(len, federated.members)) >= _BATCH
    assert federated.labels.sum(axis=1).tolist() == [len(part) for part in federated.members]
    macs = [entry.macs for entry in federated.entries]
    assert macs == sorted(macs)
    for budget in contest.budgets:
        assert any(macs_of <= budget for macs_of in macs)


def test_few_images_are_spread_over_fewer_clients(contest: Contest) -> None:
    federated = federation(contest, Images(random_images(60), random_images(40)), _CPU)
    assert federated.clients == 3
    config = adapted(contest.config, federated, _PROFILE)
    assert (config.clients.count, config.clients.per_round) == (3, 3)
    with pytest.raises(UserError, match="19 images are too few for two clients at batch 8"):
        federation(contest.with_batch(8), Images(random_images(23), random_images(40)), _CPU)


@pytest.mark.parametrize(("trainable", "counts"), [(0.0, (80, 256)), (9000.0, (166, 256)), (1e9, (300, 290))])
def test_a_slow_device_trains_and_tests_on_fewer_images(
    contest: Contest, trainable: float, counts: tuple[int, int]
) -> None:
    found = fitted(contest, Images(random_images(300), random_images(290)), trainable)
    assert (len(found.train), len(found.test)) == counts
    assert torch.unique(found.train.images, dim=0).shape[0] == counts[0]


@pytest.mark.slow
def test_every_method_reaches_the_same_compute_within_one_per_cent(contest: Contest, federated: Federated) -> None:
    for number in range(3):
        diary = Diary()
        train_for_compute(
            federated,
            _contender(contest, federated, number),
            _tensors(contest, federated),
            diary,
            _later(),
            100_000_000,
            1,
        )
        assert sum(record.compute for record in diary.records) == pytest.approx(100_000_000, rel=0.01)
        assert diary.records[-1].done == 1.0
        assert all(record.mean_accuracy is not None for record in diary.records)


@pytest.mark.slow
def test_a_run_for_its_time_ends_with_what_was_planned_for_it(contest: Contest, federated: Federated) -> None:
    left: list[float] = []

    def settled(config: RunConfig, records: Sequence[RoundRecord], seconds: float) -> RunConfig:
        left.append(seconds)
        return config

    diary = Diary()
    contender, tensors = _contender(contest, federated), _tensors(contest, federated)
    train_for_time(federated, contender, tensors, diary, Until(time.monotonic() + 600), 600 * 0.95 / 150e6, settled)
    assert sum(record.compute for record in diary.records) == pytest.approx(150e6, rel=0.02)
    assert diary.records[-1].done == 1.0
    assert diary.records[-1].mean_accuracy is not None
    assert [record.round for record in diary.records] == list(range(1, len(diary.records) + 1))
    # Planned anew after the first round, then ever more seldom.
    assert 1 <= len(left) < len(diary.records)


@pytest.mark.slow
def test_an_evaluation_that_a_plan_has_put_off_is_made_up_for(contest: Contest, federated: Federated) -> None:
    planned: list[int] = []

    def evaluated(config: RunConfig, records: Sequence[RoundRecord], seconds: float) -> RunConfig:
        planned.append(records[-1].round)
        return dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, every=1))

    diary = Diary()
    contender, tensors = _contender(contest, federated), _tensors(contest, federated)
    train_for_time(federated, contender, tensors, diary, Until(time.monotonic() + 600), 600 * 0.95 / 30e6, evaluated)
    assert len(diary.records) > 2
    # The first few rounds all end in a plan; no round but the first, before any plan, goes without an evaluation.
    assert len(planned) > 1
    assert all(record.mean_accuracy is not None for record in diary.records[1:])
    assert not any(record.owed for record in diary.records)


def test_without_time_nothing_is_trained(contest: Contest, federated: Federated) -> None:
    diary, contender, tensors = Diary(), _contender(contest, federated), _tensors(contest, federated)
    train_for_time(federated, contender, tensors, diary, Until(time.monotonic() - 1), None)
    train_for_compute(federated, contender, tensors, diary, Until(time.monotonic() - 1), 10**9, 1)
    assert diary.records == []
    assert piloted(federated, contender, tensors, 3, Until(time.monotonic() - 1)) == []


def test_a_plan_is_what_was_computed_and_what_the_last_third_of_the_rounds_leaves_time_for(
    contest: Contest, federated: Federated
) -> None:
    diary = Diary()
    contender = _contender(contest, federated)
    train_for_compute(federated, contender, _tensors(contest, federated), diary, _later(), 40_000_000, 10)
    (blank, *_) = diary.records
    records = [
        dataclasses.replace(blank, compute=compute, seconds=seconds, evaluation_seconds=0.5)
        for compute, seconds in [(100, 90.0)] * 8 + [(200, 1.5), (300, 2.5), (400, 2.5), (500, 3.5)]
    ]
    config = replanned(contender.config, records, 60.0)
    # 1,400 MACs took 12 seconds, and 95 % of the time is planned with; that is 19 rounds more like these four.
    assert config.compute == str(8 * 100 + 1400 + int(0.95 * 60 * 1400 / 12))
    assert config.evaluation.every == (12 + 19) // gpu_method.POINTS
    assert replanned(contender.config, records, -1.0).compute == "2200"


class _Stage:
    """Stands in for the training of methods: a row for each, of a compute that is given; below 0 it fails."""

    def __init__(self, *computes: int) -> None:
        self.aims: list[Aim] = []
        self.seconds: list[float] = []
        self._computes = list(computes)

    def __call__(self, contender: Contender, until: Until, aim: Aim) -> Training:
        self.aims.append(aim)
        self.seconds.append(until.left)
        compute = self._computes.pop(0)
        problem = "diverged" if compute < 0 else None
        return dataclasses.replace(_REACHED, label=contender.label, compute=max(0, compute), problem=problem)


#: A row whose compute others are to reach.
_REACHED = Training("reached", 0, "fp32", 5, 3, 1, 40_000_000, 9, 1.0, 0.1, 40)


@pytest.fixture(name="contenders")
def _contenders(contest: Contest, federated: Federated) -> list[Contender]:
    """The methods of the study."""
    return [_contender(contest, federated, number) for number in range(3)]


def test_the_first_has_its_part_of_the_time_and_the_others_its_compute(contenders: list[Contender]) -> None:
    stage = _Stage(500, 500, 400)
    rows = list(one_after_another(contenders, [1.0, 2.0, 7.0], Until(time.monotonic() + 10_000), stage))
    assert [row.label for row in rows] == ["fedpareto", "deepfednas", "superfednas"]
    assert stage.aims == [1.0, rows[0], rows[0]]
    # A tenth, two ninths and the rest of the time that is left; the first one leaves a tenth of its own.
    assert stage.seconds == pytest.approx([900.0, 10_000 * 2 / 9, 10_000.0], rel=0.05)
    assert contenders == []


def test_methods_that_cannot_be_timed_share_the_time_alike(contenders: list[Contender]) -> None:
    stage = _Stage(500, 500, 500)
    list(one_after_another(contenders, None, Until(time.monotonic() + 10_000), stage))
    assert stage.aims[0] is None
    assert stage.seconds == pytest.approx([3000.0, 5000.0, 10_000.0], rel=0.05)


@pytest.mark.parametrize("compute", [-1, 0], ids=["fails", "has no time"])
def test_without_a_first_the_others_have_nothing_to_reach(contenders: list[Contender], compute: int) -> None:
    rows = one_after_another(contenders, None, Until(time.monotonic() + 10_000), _Stage(compute, 500, 500))
    assert [row.label for row in rows] == ["fedpareto"]


class _Diverging(InProcessEngine):
    """An engine whose clients all diverge."""

    def __init__(self) -> None:
        pass

    def available(self) -> Sequence[int]:
        raise UserError("it diverged\nhere")


@pytest.mark.slow
def test_a_method_that_fails_says_why_in_its_row_and_the_next_is_trained(
    contest: Contest, federated: Federated, contenders: list[Contender]
) -> None:
    contenders[1] = dataclasses.replace(contenders[1], engine=_Diverging())

    def train_one(contender: Contender, until: Until, aim: Aim) -> Training:
        reached = aim if isinstance(aim, Training) else _REACHED
        return finding(federated, contender, _PROFILE, _tensors(contest, federated), until, reached)

    rows = list(one_after_another(contenders, None, _later(), train_one))
    assert [(row.label, row.problem) for row in rows] == [
        ("fedpareto", None),
        ("deepfednas", "it diverged"),
        ("superfednas", None),
    ]
    assert rows[2].compute == pytest.approx(rows[0].compute, rel=0.01)
    for row in (rows[0], rows[2]):
        assert [accuracy.budget for accuracy in row.accuracies] == list(contest.budgets)
        assert all(accuracy.macs <= accuracy.budget for accuracy in row.accuracies)
        assert row.curve[-1].compute == row.compute
        assert row.test_images == 40
