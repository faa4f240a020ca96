"""The method fedpareto: stratified draws from the cache, small networks first, all clients weighing alike."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs.federation import MICRO
from helpers.runs.simulation import micro_entries, recorder, short_config, simulated_run, train_run
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.cache.entries import CacheEntry
from fedpareto.training.clients.capabilities import Capability, capabilities
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.methods import FedParetoConfig
from fedpareto.training.config.rules.coincidence import normal_form
from fedpareto.training.config.rules.method_defaults import with_method_defaults
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.methods.fedpareto import FedPareto, draw_shares, power_at, stratified_draws
from fedpareto.training.methods.protocol import MethodContext
from fedpareto.training.runs.state import Counts, RunState

_CLIENTS = 5
_START = RunState(0, Counts.zero(_CLIENTS), (0,) * len(micro_entries()))


def _method(clients: Sequence[Capability] | None = None, **changes: Any) -> FedPareto:
    config = short_config(method="fedpareto", **changes)
    given = capabilities(config.clients, MICRO, config.seed) if clients is None else clients
    return FedPareto(MethodContext(config, MICRO, micro_entries(), given))


def _drawn(power: float, many: int, rounds: int, entries: Sequence[CacheEntry]) -> list[list[CacheEntry]]:
    generator = np.random.default_rng(0)
    return [stratified_draws([entries] * many, power, generator) for _ in range(rounds)]


@pytest.mark.parametrize("power", [3.0, 1.0, 0.0, -1.0])
def test_every_client_draws_in_proportion_to_a_power_of_macs(power: float) -> None:
    entries = micro_entries()
    weights = [entry.macs**-power for entry in entries]
    expected = [weight / sum(weights) for weight in weights]
    assert draw_shares(entries, power) == pytest.approx(expected)
    drawn = _drawn(power, 3, 4000, entries)
    for client in range(3):
        counts = Counter(draws[client].macs for draws in drawn)
        assert [counts[entry.macs] / 4000 for entry in entries] == pytest.approx(expected, abs=0.03)


@given(many=st.integers(1, 12), power=st.floats(-3, 5), seed=st.integers(0, 2**32 - 1))
def test_clients_of_a_round_draw_from_different_parts_of_the_distribution(many: int, power: float, seed: int) -> None:
    entries = micro_entries()
    drawn = stratified_draws([entries] * many, power, np.random.default_rng(seed))
    edges = np.cumsum(draw_shares(entries, power))
    places = sorted(entries.index(entry) for entry in drawn)
    for part, place in enumerate(places):
        # The entry drawn from the part'th stratum covers some of it.
        low = 0.0 if place == 0 else edges[place - 1]
        assert low <= (part + 1) / many + 1e-9
        assert edges[place] >= part / many - 1e-9


def test_draws_of_a_huge_power_do_not_overflow() -> None:
    for power in (20.0, -20.0):
        shares = draw_shares(micro_entries(), power)
        assert np.isfinite(shares).all()
        assert shares.sum() == pytest.approx(1)


def test_the_power_falls_on_a_line_over_the_run() -> None:
    settings = FedParetoConfig(3.0, -1.0)
    assert [power_at(settings, share) for share in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([3.0, 2.0, 1.0, -1.0])


def test_networks_of_a_runs_beginning_are_smaller_than_those_of_its_end() -> None:
    method = _method(rounds=400)

    def mean_macs(first: int) -> float:
        plans = [method.assign(dataclasses.replace(_START, round=first + number), range(5)) for number in range(60)]
        return float(np.mean([entry.macs for plan in plans for entry in plan.assigned.values()]))

    assert mean_macs(0) < 0.8 * mean_macs(340)


def test_no_client_is_given_more_than_it_can_run() -> None:
    entries = micro_entries()
    limits = [entries[index].macs for index in (0, 1, 2, len(entries) - 1, 3)]
    method = _method([Capability(macs=limit) for limit in limits])
    for number in range(50):
        plan = method.assign(dataclasses.replace(_START, round=number), range(5))
        assert all(entry.macs <= limits[client] for client, entry in plan.assigned.items())


def test_all_clients_weigh_alike_or_by_their_images() -> None:
    plan = _method().assign(_START, range(5))
    assert set(plan.weights.values()) == {1.0}
    assert plan.beta is None
    assert not _method().weight_by_examples
    assert _method(server=ServerConfig(weight_by_examples=True)).weight_by_examples


def test_plans_depend_on_the_seed_and_the_round_alone() -> None:
    state = dataclasses.replace(_START, round=3)
    first, again, other = (_method(seed=seed).assign(state, range(5)).assigned for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_it_adjusts_logits_unless_told_not_to_and_the_others_do_not() -> None:
    def adjustment(method: str, given: float | None = None) -> float | None:
        config = RunConfig(method=method)
        client = dataclasses.replace(config.client, logit_adjustment=given)
        return with_method_defaults(dataclasses.replace(config, client=client)).client.logit_adjustment

    assert adjustment("fedpareto") == 1.0
    assert adjustment("fedpareto", 0.0) == 0.0
    assert [adjustment(name) for name in ("deepfednas", "superfednas", "fedavg", "cotrain")] == [0.0] * 4
    explicit = dataclasses.replace(RunConfig().client, logit_adjustment=1.0)
    assert normal_form(RunConfig(method="fedpareto")) == normal_form(RunConfig(method="fedpareto", client=explicit))


@pytest.mark.parametrize(
    ("method", "imbalance", "adjustment"),
    [("fedpareto", "none", 0.0), ("fedpareto", "effective-number", 0.0), ("fedavg", "adjustment", 1.0)],
)
def test_what_is_chosen_about_imbalance_says_whether_logits_are_adjusted(
    method: str, imbalance: Any, adjustment: float
) -> None:
    config = RunConfig(method=method, client=ClientConfig(imbalance=imbalance))
    assert with_method_defaults(config).client.logit_adjustment == adjustment
    written = RunConfig(method=method, client=ClientConfig(logit_adjustment=adjustment))
    assert (normal_form(config) == normal_form(written)) == (imbalance != "effective-number")


def test_a_run_trains_and_records_it(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", short_config(method="fedpareto"))
    state, _ = train_run(run)
    assert state.round == run.config.rounds
    assert sum(state.trained) == run.config.rounds * run.config.clients.per_round
    assert all(record.beta is None for record in recorder(run).records)
