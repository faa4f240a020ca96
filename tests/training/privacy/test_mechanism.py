"""Clipping, noise and the sums of a private round."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from helpers.networks.strategies import architectures, runs
from helpers.runs.federation import MICRO
from helpers.runs.simulation import (
    largest,
    micro_entries,
    micro_task,
    random_architectures,
    random_tensors,
    same_bytes,
    smallest,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import Tensors, extract, views
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.aggregation.weighted_average import AVERAGING, Disturb, ServerStep, WeightedAverage
from fedpareto.training.messages import Failure, Update
from fedpareto.training.privacy.gaussian import gaussian_pieces
from fedpareto.training.privacy.key import derive
from fedpareto.training.privacy.mechanism import Noise, clip_scale, deltas, sums_digests, update_norm

_KEY = (12345).to_bytes(32)


def _noise(deviation: float, *, key: bytes = _KEY, run: str = "a run", number: int = 1) -> Disturb:
    """Return the noise of a round whose sums are seen a tensor at a time."""

    def disturb(name: str, sums: Tensor) -> None:
        Noise(key, run, number, deviation, sums_digests(key, [(name, sums)]))(name, sums)

    return disturb


def _flipped(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value) ^ 1 << bit).to_bytes(len(value))


def _update(architecture: Architecture, norm: float, seed: int = 1, client: int = 0) -> Update:
    """Return an update whose change has a random direction and the given norm."""
    task = micro_task(architecture, client=client)
    generator = torch.Generator().manual_seed(seed)
    change = {name: torch.randn(sent.shape, generator=generator) for name, sent in task.tensors.items()}
    factor = norm / math.sqrt(sum(float(tensor.double().square().sum()) for tensor in change.values()))
    return Update(task, {name: sent + factor * change[name] for name, sent in task.tensors.items()}, 5, 1.0, 0.0, 1.0)


def _plan(chosen: Sequence[Architecture], weights: Sequence[float]) -> RoundPlan:
    assigned = {
        client: dataclasses.replace(micro_entries()[0], architecture=architecture)
        for client, architecture in enumerate(chosen)
    }
    return RoundPlan(number=1, learning_rate=0.1, beta=0.5, assigned=assigned, weights=dict(enumerate(weights)))


def _merged(
    plan: RoundPlan, answers: Sequence[Update | Failure], clip: float, noise: Disturb | None = None
) -> tuple[Tensors, RoundResults]:
    """Return the supernet after a private round that began with ``random_tensors(0)``."""
    tensors = random_tensors(0)
    told = RoundResults(plan, WeightedAverage(MICRO, tensors), by_examples=False, clip=clip)
    for answer in answers:
        told.take(answer)
    told.private_fold.apply_step(tensors, None, AVERAGING, noise)
    return tensors, told


def _sums(plan: RoundPlan, answers: Sequence[Update | Failure], clip: float) -> Tensors:
    """Return the weighted sums as the noise finds them."""
    seen: Tensors = {}

    def look(name: str, sums: Tensor) -> None:
        seen[name] = sums.double().clone()

    fold = WeightedAverage(MICRO, random_tensors(0))
    told = RoundResults(plan, fold, by_examples=False, clip=clip)
    for answer in answers:
        told.take(answer)
    fold.apply_step(random_tensors(0), None, AVERAGING, look)
    return seen


def _distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return math.sqrt(sum(float((first[name] - second[name]).square().sum()) for name in first))


def _cover(plan: RoundPlan) -> Tensors:
    """Return the sum of the planned weights on every entry, from the slices' own names and shapes."""
    cover = {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in random_tensors().items()}
    for client, entry in plan.assigned.items():
        marks = {name: torch.zeros_like(tensor) for name, tensor in cover.items()}
        for view in views(MICRO, marks, entry.architecture).values():
            view.fill_(plan.weights[client])
        for name, tensor in marks.items():
            cover[name] += tensor
    return cover


def _federations() -> st.SearchStrategy[tuple[list[Architecture], list[float], list[float]]]:
    def sized(size: int) -> st.SearchStrategy[tuple[list[Architecture], list[float], list[float]]]:
        chosen = st.lists(architectures(MICRO), min_size=size, max_size=size)
        weights = st.lists(st.floats(0.01, 1.0), min_size=size, max_size=size)
        norms = st.lists(st.floats(0.01, 20.0), min_size=size, max_size=size)
        return st.tuples(chosen, weights, norms)

    return st.integers(2, 4).flatmap(sized)


@runs(25, shrink=False)
@given(federation=_federations(), clip=st.sampled_from([0.5, 3.0]), data=st.data())
def test_one_client_changes_the_sum_by_at_most_its_weight_times_the_clip(
    federation: tuple[list[Architecture], list[float], list[float]], clip: float, data: st.DataObject
) -> None:
    chosen, weights, norms = federation
    plan = _plan(chosen, weights)
    answers = [_update(one, norm, client, client) for client, (one, norm) in enumerate(zip(chosen, norms, strict=True))]
    absent = data.draw(st.integers(0, len(chosen) - 1))
    without: list[Update | Failure] = list(answers)
    without[absent] = Failure(answers[absent].task, "error", "its battery is empty")
    change = _distance(_sums(plan, answers, clip), _sums(plan, without, clip))
    # The bound is reached: a client of at least the clip changes the sum by all of it.
    assert change == pytest.approx(weights[absent] * min(clip, norms[absent]), rel=1e-4)
    assert change <= max(weights) * clip * (1 + 1e-5)
    # A client of zero updates is as one that failed: the same noise and the same divisor.
    without[absent] = dataclasses.replace(answers[absent], tensors=answers[absent].task.tensors)
    assert _distance(_sums(plan, answers, clip), _sums(plan, without, clip)) == pytest.approx(change, rel=1e-6)


@pytest.mark.parametrize("norm", [0.01, 1.0, 7.0])
def test_the_norm_is_that_of_all_tensors_together_and_no_more_is_left_than_the_clip(norm: float) -> None:
    update = _update(largest(), norm)
    assert update_norm(update) == pytest.approx(norm, rel=1e-4)
    scale = clip_scale(update_norm(update), 2.0)
    left = math.sqrt(sum(float((scale * delta.double()).square().sum()) for _, delta in deltas(update)))
    assert left == pytest.approx(min(norm, 2.0), rel=1e-4)
    assert left <= 2.0 * (1 + 1e-12)


def test_an_update_of_nothing_is_left_as_it_is() -> None:
    assert clip_scale(0.0, 1.0) == 1.0


def test_the_norm_of_many_equal_changes_is_exact() -> None:
    task = micro_task(largest())
    zeros = {name: torch.zeros_like(tensor) for name, tensor in task.tensors.items()}
    task = dataclasses.replace(task, tensors=zeros)
    update = Update(task, {name: torch.full_like(tensor, 0.1) for name, tensor in zeros.items()}, 5, 1.0, 0.0, 1.0)
    entries = sum(tensor.numel() for tensor in zeros.values())
    assert update_norm(update) == pytest.approx(float(np.float32(0.1)) * math.sqrt(entries), rel=1e-12)


def test_updates_below_the_clip_are_merged_to_the_mean_of_what_clients_trained() -> None:
    chosen = [largest(), smallest(), *random_architectures(2, seed=3)]
    weights = [0.4, 0.1, 0.2, 0.3]
    plan = _plan(chosen, weights)
    answers = [_update(architecture, 1.0, client, client) for client, architecture in enumerate(chosen)]
    private, told = _merged(plan, answers, clip=2.0)
    plain = random_tensors(0)
    fold = WeightedAverage(MICRO, plain)
    for update, weight in zip(answers, weights, strict=True):
        fold.add(update.task.architecture, update.tensors, weight)
    fold.write_mean(plain)
    assert told.clipped == 0.0
    for name, tensor in plain.items():
        torch.testing.assert_close(private[name], tensor, atol=1e-6, rtol=1e-5)


def test_failed_clients_count_in_the_divisor() -> None:
    plan = _plan([largest(), largest()], [0.25, 0.75])
    update = _update(largest(), 1.0)
    failed = Failure(micro_task(client=1), "error", "its battery is empty")
    after, told = _merged(plan, [update, failed], clip=10.0)
    for name, before in random_tensors(0).items():
        expected = before + 0.25 * (update.tensors[name] - before)
        torch.testing.assert_close(after[name], expected, atol=1e-6, rtol=1e-5)
    assert list(told.accepted) == [0]
    assert told.clipped == 0.0


def test_the_share_of_clipped_updates_is_that_of_the_accepted_ones() -> None:
    plan = _plan([largest()] * 4, [0.25] * 4)
    answers: list[Update | Failure] = [
        _update(largest(), norm, 1, client) for client, norm in enumerate((5.0, 0.5, 9.0))
    ]
    answers.append(Failure(micro_task(client=3), "error", "its battery is empty"))
    assert _merged(plan, answers, clip=1.0)[1].clipped == pytest.approx(2 / 3)


def test_a_change_too_large_for_a_float_is_a_failure_and_not_merged() -> None:
    task = micro_task(largest(), {name: torch.full_like(t, -3e38) for name, t in random_tensors().items()})
    huge = Update(task, {name: torch.full_like(t, 3e38) for name, t in task.tensors.items()}, 5, 1.0, 0.0, 1.0)
    after, told = _merged(_plan([largest()], [1.0]), [huge], clip=1.0)
    assert [failure.kind for failure in told.failures] == ["non-finite"]
    assert same_bytes(after, random_tensors(0))


def test_noise_has_the_stated_deviation_on_every_covered_entry_and_none_elsewhere() -> None:
    chosen, weights = [smallest(), *random_architectures(2, seed=8)], [0.2, 0.5, 0.3]
    plan, clip, multiplier = _plan(chosen, weights), 0.5, 1.5
    answers = [_update(architecture, 3.0, client, client) for client, architecture in enumerate(chosen)]
    still, _ = _merged(plan, answers, clip)
    deviation = multiplier * clip * max(weights)
    cover, before = _cover(plan), random_tensors(0)
    drawn: list[Tensor] = []
    for key in range(20):
        noisy, _ = _merged(plan, answers, clip, _noise(deviation, key=key.to_bytes(32)))
        for name, weight in cover.items():
            assert torch.equal(noisy[name][weight == 0], before[name][weight == 0])
            difference = (noisy[name].double() - still[name].double()) * weight / deviation
            drawn.append(difference[weight > 0])
    values = torch.cat(drawn)
    assert any((weight == 0).any() for weight in cover.values())
    assert len(values) > 50_000
    # Five standard errors of the mean and of the variance of so many normal draws.
    assert abs(float(values.mean())) < 5 / math.sqrt(len(values))
    assert abs(float(values.var()) - 1) < 5 * math.sqrt(2 / len(values))
    assert abs(float((values.abs() < 1).double().mean()) - 0.6827) < 0.01


def test_where_all_who_cover_a_tensor_failed_it_has_noise_all_the_same() -> None:
    plan = _plan([smallest(), largest()], [0.5, 0.5])
    failed = Failure(micro_task(client=1), "error", "its battery is empty")
    after, _ = _merged(plan, [_update(smallest(), 1.0), failed], 1.0, _noise(0.5))
    before, own = random_tensors(0), extract(MICRO, random_tensors(0), smallest())
    alone = [name for name in before if name not in own]
    assert alone
    changed = torch.cat([(after[name] - before[name]).flatten() for name in alone])
    # The deviation is 0.5 over the weight 0.5 of the one who failed.
    assert float(changed.std()) == pytest.approx(1.0, abs=5 / math.sqrt(2 * len(changed)))


_DIGEST = bytes(range(32))

#: What the noise of a tensor depends on, and other values of each that differ in little.
_OTHERS = [
    *(("key", _flipped(_KEY, bit)) for bit in range(256)),
    *(("digests", {"layer": _flipped(_DIGEST, bit), "other": _DIGEST}) for bit in range(256)),
    *(("run", other) for other in ("a", "", "A run", "a run ", "a run\0")),
    *(("round", other) for other in (2, 10, 11, 2**31)),
    *(("deviation", other) for other in (math.nextafter(1.0, 2.0), 2.0)),
]


def test_every_bit_of_what_noise_is_derived_from_changes_all_of_it() -> None:
    first, values = Noise(_KEY, "a run", 1, 1.0, {"layer": _DIGEST, "other": _DIGEST}), torch.zeros(64)
    first("layer", values)
    again, renamed = torch.zeros(64), torch.zeros(64)
    first("layer", again)
    first("other", renamed)
    assert torch.equal(values, again)
    assert not torch.isclose(values, renamed, rtol=1e-6).any()
    for field, other in _OTHERS:
        second, others = dataclasses.replace(first, **{field: other}), torch.zeros(64)  # type: ignore[arg-type]
        second("layer", others)
        assert not torch.isclose(values, others / second.deviation, rtol=1e-6).any(), field


def test_neighbouring_tensors_of_equal_sums_have_independent_noise() -> None:
    sums = {f"layer.{number}.weight": torch.zeros(20_000) for number in range(12)}
    noise = Noise(_KEY, "a run", 1, 1.0, sums_digests(_KEY, sums.items()))
    for name, tensor in sums.items():
        noise(name, tensor)
    between = torch.corrcoef(torch.stack([*sums.values(), *(tensor.roll(1) for tensor in sums.values())]))
    between.fill_diagonal_(0.0)
    # Six standard errors of a correlation of so many independent values.
    assert float(between.abs().max()) < 6 / math.sqrt(20_000)


def test_the_digests_tell_equal_sums_and_nothing_without_the_key() -> None:
    sums = [("a", torch.zeros(5)), ("b", torch.zeros(5))]
    digests = sums_digests(_KEY, sums)
    assert digests == sums_digests(_KEY, [(name, tensor.clone()) for name, tensor in sums])
    assert len({*digests.values(), *sums_digests(bytes(32), sums).values()}) == 4
    changed = torch.zeros(5)
    changed[3] = 1e-45
    assert sums_digests(_KEY, [("a", changed)])["a"] != digests["a"]


def test_the_noise_is_added_in_float64_and_rounded_once() -> None:
    sums = torch.full((1000,), 3.0)
    noise = Noise(_KEY, "a run", 1, 1e-3, sums_digests(_KEY, [("a", sums)]))
    parts = ("a run", 1, (1e-3).hex(), "a", noise.digests["a"])
    (drawn,) = gaussian_pieces(derive(_KEY, "noise", *parts), 1000)
    noise("a", sums)
    assert np.array_equal(sums.numpy(), (3.0 + 1e-3 * drawn).astype(np.float32))


def test_the_key_is_not_in_the_words_for_a_noise() -> None:
    noise = Noise(_KEY, "a run", 1, 1.0, {})
    assert repr(_KEY) not in repr(noise)
    assert _KEY.hex() not in repr(noise)


def test_the_memory_format_does_not_change_the_noise() -> None:
    sums = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    turned = sums.to(memory_format=torch.channels_last, copy=True)
    for tensor in (sums, turned):
        _noise(1.0)("a", tensor)
    assert torch.equal(sums, turned)


def test_the_noisy_mean_step_goes_into_the_velocity() -> None:
    plan, update = _plan([smallest()], [1.0]), _update(smallest(), 1.0)
    still, _ = _merged(plan, [update], 2.0, _noise(0.1))
    tensors, velocity = random_tensors(0), random_tensors(7)
    told = RoundResults(plan, WeightedAverage(MICRO, tensors), by_examples=False, clip=2.0)
    told.take(update)
    told.private_fold.apply_step(tensors, velocity, ServerStep(0.5), _noise(0.1))
    cover = _cover(plan)
    for name, before in random_tensors(0).items():
        faded = 0.5 * random_tensors(7)[name]
        speed = torch.where(cover[name] > 0, faded + (still[name] - before), faded)
        torch.testing.assert_close(velocity[name], speed, atol=1e-6, rtol=1e-5)
        expected = torch.where(cover[name] > 0, before + speed, before)
        torch.testing.assert_close(tensors[name], expected, atol=1e-6, rtol=1e-5)
