"""Accuracy over the clients: every client judged with the network that it can run, against counting one by one."""

import dataclasses
import json
from pathlib import Path

import pytest
from helpers.networks.strategies import runs
from helpers.runs.federation import MICRO, micro_space
from helpers.runs.simulation import random_architectures
from helpers.runs.studies import BUDGETS, measured, outcome_of, read_tiny
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.cache.entries import make_entry
from fedpareto.search.comparison.results.outcome import MeasuredNetwork
from fedpareto.search.comparison.results.summary import Served
from fedpareto.search.comparison.served import served, served_clients
from fedpareto.search.comparison.studies.study import Study
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.clients.capabilities import Capability, capabilities, training_memory

_NETWORKS = random_architectures(12, seed=3)
_LINEAR = MeasuredNetwork(7, 7, 8, 0.5, 0.25, 0.0, None)


@st.composite
def _trial(draw: st.DrawFn) -> list[MeasuredNetwork]:
    """Networks of ascending budgets, with accuracies that need not ascend."""
    chosen = draw(st.lists(st.sampled_from(_NETWORKS), min_size=1, max_size=5, unique=True))
    entries = sorted((make_entry(MICRO, network) for network in chosen), key=lambda entry: entry.macs)
    return [
        measured(entry.macs + place, draw(st.floats(0, 1)), entry.architecture) for place, entry in enumerate(entries)
    ]


@given(_trial(), st.lists(st.tuples(st.integers(30_000, 200_000), st.integers(20_000, 400_000)), min_size=1))
@runs(100)
def test_a_client_has_the_network_of_the_largest_budget_that_it_can_run(
    networks: list[MeasuredNetwork], limits: list[tuple[int, int]]
) -> None:
    clients = [Capability(macs=macs, memory=memory) for macs, memory in limits]
    accuracies, unserved = [], 0
    for macs, memory in limits:
        own = None
        for network in networks:
            entry = next(make_entry(MICRO, each) for each in _NETWORKS if each.to_json() == network.architecture)
            if entry.macs <= macs and 4 * entry.params + 16 * entry.activation_bytes <= memory:
                own = network.test_accuracy
        accuracies.append(own or 0.0)
        unserved += own is None
    found = served(MICRO, networks, clients, 16)
    assert found.accuracy == pytest.approx(sum(accuracies) / len(limits))
    assert found.unserved == unserved / len(limits)
    # The order in which they are kept decides nothing.
    assert served(MICRO, networks[::-1], clients[::-1], 16).accuracy == pytest.approx(found.accuracy)


def test_all_clients_can_run_a_linear_model() -> None:
    assert served(MICRO, [_LINEAR], [Capability(macs=1), Capability()], 16) == Served(0.25, 0.0)


def test_networks_of_other_numbers_of_classes_are_what_they_were_when_they_were_trained() -> None:
    network, space = _NETWORKS[0], micro_space(classes=37)
    entry = make_entry(space, network)
    kept = [measured(entry.macs, 0.5, network, space)]
    need = training_memory(entry, 16)
    assert served(MICRO, kept, [Capability(memory=need), Capability(memory=need - 1)], 16) == Served(0.25, 0.5)


def test_a_network_of_another_space_is_refused() -> None:
    kept = measured(60_000, 0.5, _NETWORKS[0])
    for other in (micro_space(kernels=(7,)), micro_space(norm="group", in_channels=1)):
        with pytest.raises(UserError, match="a result has a network of another space than micro"):
            served(other, [kept], [Capability()], 16)


def _study(folder: Path) -> Study:
    clients = {"count": 6, "per_round": 3, "max_macs": ["40k", "150k"], "macs_distribution": "uniform"}
    run = {"clients": {**clients, "max_memory": ["1M", "160k"]}}
    return read_tiny(folder, run, yardsticks=["alone", "central", "linear"])


def test_the_seed_and_the_study_say_what_clients_can_run_whatever_the_trial(tmp_path: Path) -> None:
    study = _study(tmp_path)
    one, other = sorted(_NETWORKS, key=lambda network: make_entry(MICRO, network).macs)[2:11:8]
    networks = [measured(BUDGETS[0], 0.25, one), measured(BUDGETS[1], 0.75, other)]
    labels = ["deepfednas", "cotrain", "fedavg-alone", "fedavg-central"]
    outcomes = [outcome_of(label, seed, networks) for label in labels for seed in (0, 1)]
    found = served_clients(
        study, [*outcomes, outcome_of("linear", 0, [dataclasses.replace(_LINEAR, budget=b) for b in BUDGETS])]
    )
    for seed in (0, 1):
        # Also of what was trained in one place: its networks would run on the clients.
        clients = capabilities(study.trials[0].config.clients, MICRO, seed)
        expected = served(MICRO, networks, clients, 16)
        assert expected.unserved == (1 + seed) / 6
        assert {found[label, seed] for label in labels} == {expected}
    assert found["deepfednas", 0] != found["deepfednas", 1]
    assert found["linear", 0] == Served(0.25, 0.0)


def test_a_method_of_one_network_is_judged_by_it_and_a_row_that_lacks_a_budget_is_not(tmp_path: Path) -> None:
    study = _study(tmp_path)
    single = [measured(BUDGETS[1], 0.75, _NETWORKS[0])]
    outcomes = [outcome_of(label, 0, single) for label in ("cotrain", "fedavg-alone")]
    assert set(served_clients(study, [*outcomes, outcome_of("deepfednas", 1, [])])) == {("cotrain", 0)}
    # Networks of budgets that the study has no longer do not count.
    gone = [*single, measured(999_999, 1.0, _NETWORKS[0])]
    assert served_clients(study, [outcome_of("cotrain", 0, gone)]) == served_clients(study, outcomes[:1])


def test_an_outcome_of_before_is_enough(tmp_path: Path) -> None:
    from fedpareto.search.comparison.results.outcome import read_outcome, write_outcome

    outcome = outcome_of("cotrain", 0, [measured(BUDGETS[0], 0.25, _NETWORKS[0])])
    write_outcome(tmp_path / "cotrain.json", outcome)
    assert "clients" not in json.loads((tmp_path / "cotrain.json").read_text())
    assert ("cotrain", 0) in served_clients(_study(tmp_path), [read_outcome(tmp_path / "cotrain.json")])
