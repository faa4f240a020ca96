"""DecNAS as a method: whole small runs, their account, what a checkpoint carries."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.runs.federation import MICRO
from helpers.runs.simulation import (
    Start,
    checkpoint_names,
    fresh_start,
    largest,
    micro_entries,
    recorder,
    same_bytes,
    short_config,
    simulated_run,
    smallest,
    spoiled_run,
    unspoiled,
)

from fedpareto.cache.entries import make_entry
from fedpareto.supernet.architecture import architecture_from_json
from fedpareto.supernet.architecture_file import ARCHITECTURE
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import extract
from fedpareto.training.clients.capabilities import Capability, capabilities
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.methods import DecNasConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.messages import Task, Update
from fedpareto.training.methods.decnas.accounting import ACCOUNTING
from fedpareto.training.methods.decnas.method import DecNas, decnas
from fedpareto.training.methods.decnas.state import Search, search_from_json
from fedpareto.training.methods.protocol import MethodContext
from fedpareto.training.methods.schedules import learning_rate
from fedpareto.training.rounds.loop import train
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.checkpoint import (
    Checkpoint,
    branch_file,
    checkpoint_folder,
    load_checkpoint,
    newest_checkpoint,
)
from fedpareto.training.runs.state import Origin, RunState

_START = make_entry(MICRO, largest())


def _config(clients: int = 10, rounds: int = 2, **settings: Any) -> RunConfig:
    """Return a run of two iterations or so; every candidate has a client, and every round has a checkpoint."""
    chosen = {"budget": "115K", "step": 0.12, "drop_after": 1, "least_rounds": 1, "most_rounds": 3, **settings}
    return short_config(
        method="decnas",
        rounds=rounds,
        clients=ClientsConfig(count=clients, per_round=3),
        decnas=DecNasConfig(**chosen),
        checkpoint=CheckpointConfig(every=1, keep=100),
        evaluation=EvaluationConfig(every=2, probes=2, calibration_images=16, batch_size=16),
    )


def _searched(state: RunState) -> Search:
    return search_from_json(MICRO, state.method)


def _trained(run: Run) -> tuple[RunState, Start]:
    start = fresh_start(run)
    return train(run, *start), start


def _states(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints of every round."""
    return [load_checkpoint(folder / "checkpoints" / name, MICRO) for name in checkpoint_names(folder)]


def _account(folder: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / ACCOUNTING).read_text())
    return body


def _ground(config: RunConfig, clients: Sequence[Capability] | None = None, *, known: bool = True) -> MethodContext:
    labels = np.full((config.clients.count, 4), 5)
    able = capabilities(config.clients, MICRO, 0) if clients is None else clients
    return MethodContext(config, MICRO, micro_entries(), able, labels if known else None)


@pytest.mark.slow
def test_a_run_shrinks_the_network_to_its_budget_and_then_trains_it_for_its_rounds(tmp_path: Path) -> None:
    run = simulated_run(tmp_path, _config())
    state, start = _trained(run)
    search = _searched(state)
    assert search.iteration is None
    assert search.current.macs <= 115_000 < _START.macs
    macs = [step["macs"] for step in search.history]
    assert [_START.macs, *macs] == sorted([_START.macs, *macs], reverse=True)
    assert macs[-1] == search.current.macs
    assert all(before > 115_000 for before in macs[:-1])
    assert state.origin is not None
    assert state.round == state.origin.round + 2
    assert architecture_from_json(json.loads((tmp_path / ARCHITECTURE).read_text())) == search.current.architecture
    # Fine-tuning trains the result alone: probes, rates and draws are those of federated averaging.
    rounds = recorder(run).records
    tuned = rounds[state.origin.round :]
    assert [record.lr for record in tuned] == [learning_rate("cosine", 0.05, index, 2) for index in range(2)]
    assert {record.lr for record in rounds[: state.origin.round]} == {0.05}
    assert all(len(record.clients) == 3 for record in tuned)
    assert [probe.macs for probe in tuned[-1].probes] == [search.current.macs]
    assert [record.done for record in rounds] == [0.0] * state.origin.round + [0.5, 1.0]
    assert same_bytes(load_checkpoint(newest_checkpoint(tmp_path), MICRO).models.supernet, start.models.supernet)


@pytest.mark.slow
def test_every_target_is_the_steps_share_of_the_start_below_the_current_network(tmp_path: Path) -> None:
    state, _ = _trained(simulated_run(tmp_path, _config(budget="80K", most_rounds=1, decay=0.5)))
    macs = _START.macs
    history = _searched(state).history
    assert len(history) >= 2
    for index, step in enumerate(history):
        target = max(80_000, int(macs - 0.12 * _START.macs * 0.5**index))
        assert step["target"] == target
        assert all(candidate["macs"] <= target for candidate in step["candidates"])
        macs = step["macs"]


@pytest.mark.slow
def test_the_winner_of_an_iteration_gained_most_or_lost_least_per_mac_and_its_weights_are_the_supernets(
    tmp_path: Path,
) -> None:
    _trained(simulated_run(tmp_path, _config()))
    found = _states(tmp_path)
    changes = 0
    for before, after in itertools.pairwise(found):
        was, now = _searched(before.state), _searched(after.state)
        if len(now.history) == len(was.history):
            continue
        changes += 1
        told = now.history[-1]
        current = was.current
        reference = was.accuracy
        if reference is not None:
            raced = [one for one in told["candidates"] if not one["dropped"]]
            rounds = min(len(one["accuracies"]) for one in raced)
            assert told["compared_after"] == rounds
            gains = {one["name"]: one["accuracies"][rounds - 1] - reference for one in raced}
            saved = {one["name"]: current.macs - one["macs"] for one in raced}
            if max(gains.values()) > 0:
                assert gains[told["winner"]] == max(gains.values())
            else:
                assert gains[told["winner"]] / saved[told["winner"]] == max(gains[one] / saved[one] for one in gains)
        # All that train next begin as slices of what won.
        for branch in after.models.branches.values():
            assert same_bytes(branch.tensors, extract(MICRO, after.models.supernet, branch.architecture))
        inherited = extract(MICRO, after.models.supernet, now.current.architecture)
        assert not same_bytes(inherited, extract(MICRO, before.models.supernet, now.current.architecture))
    assert changes == len(_searched(found[-1].state).history) >= 2


@pytest.mark.slow
def test_the_supernet_outside_the_current_network_keeps_its_bytes(tmp_path: Path) -> None:
    run = simulated_run(tmp_path, _config())
    start = fresh_start(run)
    before = {name: tensor.clone() for name, tensor in start.models.supernet.items()}
    _, end = _trained(run)
    (first,) = [one for one in _states(tmp_path) if one.state.round == 1]
    # The search trains branches; nothing of the supernet changes before the first winner.
    assert same_bytes(first.models.supernet, before)
    assert not same_bytes(end.models.supernet, before)


@pytest.mark.slow
def test_each_group_trains_its_candidate_and_every_candidate_is_the_mean_of_its_group(tmp_path: Path) -> None:
    config = _config(clients=17, drop_after=9)
    run, engine = spoiled_run(tmp_path, unspoiled, config)
    _trained(run)
    (first,) = [one for one in _states(tmp_path) if one.state.round == 1]
    iteration = _searched(first.state).iteration
    assert iteration is not None
    updates = {update.task.client: update for update in engine.updates if update.task.round == 1}
    assert updates.keys() == set(range(17))
    assert len(iteration.racers) == len(first.models.branches) == 5
    for racer in iteration.racers:
        assert len(racer.clients) in (3, 4)
        for name, tensor in first.models.branches[racer.name].tensors.items():
            mean = sum(updates[client].tensors[name].double() for client in racer.clients) / len(racer.clients)
            torch.testing.assert_close(tensor.double(), mean, atol=1e-6, rtol=1e-5)
    assert recorder(run).records[0].tested.keys() == {racer.name for racer in iteration.racers} | {"current"}
    assert {one["branch"] for one in recorder(run).records[0].clients} == first.models.branches.keys()


@pytest.mark.slow
def test_clients_of_dropped_candidates_move_to_the_others(tmp_path: Path) -> None:
    _trained(simulated_run(tmp_path, _config(clients=17, most_rounds=9, gain=0.0)))
    dropped = 0
    for one in _states(tmp_path):
        iteration = _searched(one.state).iteration
        if iteration is None:
            continue
        training = [racer for racer in iteration.racers if racer.status == "training"]
        dropped += len(iteration.racers) - len(training)
        assert sorted(client for racer in iteration.racers for client in racer.clients) == list(range(17))
        assert all(not racer.clients for racer in iteration.racers if racer.status == "dropped")
        # Their weights are gone, too.
        assert one.models.branches.keys() == {racer.name for racer in iteration.racers if racer.status != "dropped"}
    assert dropped


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_resumed_after_any_round_ends_with_the_bytes_of_one_never_interrupted(tmp_path: Path, every: int) -> None:
    config = _config(clients=8)
    state, whole = _trained(simulated_run(tmp_path / "whole", config))
    expected = _states(tmp_path / "whole")
    assert state.origin is not None
    assert state.origin.round >= 3
    for stop in range(1, state.round, every):
        folder = tmp_path / f"stopped-{stop}"
        answers = iter([False] * (stop - 1) + [True])
        _trained(simulated_run(folder, config, should_stop=lambda answers=answers: next(answers)))
        found = load_checkpoint(newest_checkpoint(folder), MICRO)
        assert found.state.round == stop
        resumed = simulated_run(folder, config)
        end = train(resumed, found.state, found.models)
        assert end == state
        assert same_bytes(found.models.supernet, whole.models.supernet)
        for one, other in zip(_states(folder)[stop:], expected[stop:], strict=True):
            assert one.state == other.state
            assert same_bytes(one.models.supernet, other.models.supernet)
            assert one.models.branches.keys() == other.models.branches.keys()
            for name, branch in one.models.branches.items():
                assert branch.architecture == other.models.branches[name].architecture
                assert same_bytes(branch.tensors, other.models.branches[name].tensors)
        assert (folder / ACCOUNTING).read_bytes() == (tmp_path / "whole" / ACCOUNTING).read_bytes()


@pytest.mark.slow
def test_the_account_is_that_of_the_messages_and_the_straightforward_one_what_it_would_really_be(
    tmp_path: Path,
) -> None:
    config = _config(clients=9)
    run, engine = spoiled_run(tmp_path, unspoiled, config)
    state, start = _trained(run)
    assert state.origin is not None
    account = _account(tmp_path)
    for name, rounds in (
        ("search", range(1, state.origin.round + 1)),
        ("fine_tuning", range(state.origin.round + 1, state.round + 1)),
    ):
        updates = [update for update in engine.updates if update.task.round in rounds]
        assert account[name] == {
            "bytes_up": sum(update.traffic.up for update in updates),
            "bytes_down": sum(update.traffic.down for update in updates),
            "compute": sum(update.compute for update in updates),
        }
    # Train every candidate of every iteration on every client once; the most rounds are as many again.
    first = run.method.branches(fresh_start(run).state)
    raced = {(1, name): entry.architecture for name, entry in first.items()}
    for one in _states(tmp_path):
        iteration = _searched(one.state).iteration
        if iteration is not None:
            raced |= {(iteration.number, racer.name): racer.candidate.entry.architecture for racer in iteration.racers}
    tasks = [
        Task(1, client, architecture, extract(MICRO, start.models.supernet, architecture), 1, 0.01, 7)
        for architecture in raced.values()
        for client in range(9)
    ]
    once = [one for one in simulated_run(tmp_path, config).engine.run(tasks) if isinstance(one, Update)]
    assert len(once) == len(tasks)
    assert account["straightforward_search"] == {
        "bytes_up": 3 * sum(answer.traffic.up for answer in once),
        "bytes_down": 3 * sum(answer.traffic.down for answer in once),
        "compute": 3 * sum(answer.compute for answer in once),
    }
    for name, share in account["saved"].items():
        assert share == 1 - account["search"][name] / account["straightforward_search"][name] > 0.5
    assert [step["winner"] for step in account["iterations"]] == [step["winner"] for step in _searched(state).history]


def test_one_candidate_on_all_clients_for_the_most_rounds_saves_nothing(tmp_path: Path) -> None:
    """Where nothing is left to group, drop or stop, a run is the straightforward version itself."""
    block = dataclasses.replace(smallest().stages[0].blocks[0], kernel=5)
    start = dataclasses.replace(
        smallest(), stages=(dataclasses.replace(smallest().stages[0], blocks=(block,)), *smallest().stages[1:])
    )
    path = tmp_path / "start.json"
    path.write_text(str(start))
    budget = str(make_entry(MICRO, smallest()).macs)
    config = _config(clients=4, architecture=str(path), budget=budget, least_rounds=3, gain=0.0)
    run, engine = spoiled_run(tmp_path, unspoiled, config)
    state, _ = _trained(run)
    assert _searched(state).current.architecture == smallest()
    account = _account(tmp_path)
    assert account["search"] == account["straightforward_search"]
    assert account["search"]["bytes_up"] == sum(one.traffic.up for one in engine.updates if one.task.round <= 3)
    assert set(account["saved"].values()) == {0.0}


def test_with_fewer_clients_than_candidates_those_nearest_to_the_target_stay(tmp_path: Path) -> None:
    method = decnas(_ground(_config(clients=3)))
    kept = method.branches(RunState(0, fresh_start(simulated_run(tmp_path)).state.counts, ()))
    everyone = decnas(_ground(_config(clients=30))).branches(
        RunState(0, fresh_start(simulated_run(tmp_path)).state.counts, ())
    )
    nearest = sorted((entry.macs for entry in everyone.values()), reverse=True)[:3]
    assert sorted((entry.macs for entry in kept.values()), reverse=True) == nearest
    assert kept.items() <= everyone.items()


@pytest.mark.slow
def test_a_client_is_only_given_what_it_can_run(tmp_path: Path) -> None:
    limits = ClientsConfig(count=12, per_round=4, max_macs=("110K", "125K", "1M"))
    config = dataclasses.replace(_config(), clients=limits)
    able = capabilities(limits, MICRO, 0)
    run, engine = spoiled_run(tmp_path, unspoiled, config)
    _trained(run)
    asked = set()
    for update in engine.updates:
        entry = make_entry(MICRO, update.task.architecture)
        assert able[update.task.client].runs(entry, 8)
        asked.add(update.task.client)
    assert {0, 1, 2} <= {client % 3 for client in asked}


@pytest.mark.slow
def test_a_limit_of_compute_ends_a_run_in_its_search_or_its_fine_tuning(tmp_path: Path) -> None:
    state, _ = _trained(simulated_run(tmp_path / "whole", _config()))
    assert state.origin is not None
    for number, limit in enumerate((state.origin.compute // 2, state.origin.compute + 1, 2 * state.compute)):
        folder = tmp_path / str(number)
        run = simulated_run(folder, dataclasses.replace(_config(), compute=str(limit)))
        ended, _ = _trained(run)
        records = recorder(run).records
        assert limit > ended.compute - records[-1].compute
        assert 0.995 * limit <= ended.compute < limit + 8 * sum(client["macs"] for client in records[-1].clients)
        assert records[-1].done == 1.0
        assert _account(folder)["budget"] == 115_000
        assert (ended.origin is None) == (number == 0)
        assert _searched(ended).current.macs == _account(folder)["macs"]
        if ended.origin is not None:
            tuned = records[ended.origin.round :]
            # The schedule of the rate runs over what the search has left.
            for index, record in enumerate(tuned):
                done = sum(one.compute for one in tuned[:index])
                assert record.lr == learning_rate("cosine", 0.05, done, limit - ended.origin.compute)


@pytest.mark.slow
def test_the_best_round_is_one_of_the_network_that_the_run_ends_with(tmp_path: Path) -> None:
    config = _config()
    state, _ = _trained(simulated_run(tmp_path, config))
    assert state.best is not None
    assert state.origin is not None
    assert state.best.round > state.origin.round
    assert checkpoint_folder(tmp_path, state.best.round).exists()


@pytest.mark.slow
def test_a_search_has_a_rate_of_its_own_if_one_is_set(tmp_path: Path) -> None:
    run = simulated_run(tmp_path, _config(lr=0.01))
    state, _ = _trained(run)
    assert state.origin is not None
    assert {record.lr for record in recorder(run).records[: state.origin.round]} == {0.01}
    assert recorder(run).records[state.origin.round].lr == 0.05


@pytest.mark.slow
def test_the_servers_momentum_begins_with_the_fine_tuning(tmp_path: Path) -> None:
    config = _config()
    server = dataclasses.replace(config.server, momentum=0.5)
    state, start = _trained(simulated_run(tmp_path, dataclasses.replace(config, server=server)))
    assert state.origin is not None
    for one in _states(tmp_path):
        assert one.models.velocity is not None
        moving = any(tensor.any() for tensor in one.models.velocity.values())
        assert moving == (one.state.round > state.origin.round)
    assert start.models.velocity is not None


@pytest.mark.slow
def test_a_checkpoint_has_a_file_for_every_candidate_in_the_race(tmp_path: Path) -> None:
    state, _ = _trained(simulated_run(tmp_path, _config()))
    assert state.origin is not None
    for one, name in zip(_states(tmp_path), checkpoint_names(tmp_path), strict=True):
        files = {path.name for path in (tmp_path / "checkpoints" / name).glob("branch-*")}
        assert files == {branch_file(branch) for branch in one.models.branches}
        assert bool(files) == (one.state.round < state.origin.round)


@pytest.mark.slow
def test_the_state_of_a_search_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    _trained(simulated_run(tmp_path, _config()))
    for one in _states(tmp_path):
        search = _searched(one.state)
        again = json.loads(json.dumps(search.to_json()))
        assert again == one.state.method
        assert search_from_json(MICRO, again) == search


def test_a_state_before_the_first_round_begins_with_the_first_candidates() -> None:
    method = decnas(_ground(_config()))
    assert isinstance(method, DecNas)
    state = RunState(0, fresh_start(simulated_run(Path("unused"))).state.counts, ())
    assert state.origin == Origin()
    assert method.branches(state)
    assert method.probes(state) == [_START]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"budget": "1M"},
            r"decnas.budget is 1M, but shrinking takes the network of 146,464 MACs to 40,416 at the least",
        ),
        ({"budget": "146464"}, "name a budget between them"),
        ({"budget": "40K"}, "name a budget between them"),
        ({"architecture": "absent.json"}, "cannot read absent.json"),
    ],
)
def test_what_cannot_be_shrunk_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        decnas(_ground(_config(**settings)))
    assert "\n" not in str(caught.value)


def test_a_start_outside_the_space_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(str(dataclasses.replace(largest(), resolution=32)))
    with pytest.raises(UserError, match=rf"decnas.architecture {path}: architecture is not in micro: resolution is 32"):
        decnas(_ground(_config(architecture=str(path))))


def test_clients_too_weak_for_all_candidates_and_unknown_labels_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"no client can run any network a little smaller than the 146.5K MACs"
    ) as caught:
        decnas(_ground(_config(), [Capability(macs=30_000)] * 10))
    assert "raise clients.max_macs or name a smaller decnas.architecture" in str(caught.value)
    with pytest.raises(UserError, match="those of connected clients are not known"):
        decnas(_ground(_config(), known=False))
