"""The methods of training: whom a round asks for what, and what unequal clients receive."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.runs.federation import MICRO
from helpers.runs.simulation import (
    largest,
    micro_entries,
    random_tensors,
    recorder,
    short_config,
    simulated_run,
    smallest,
    spoiled_run,
    train_run,
    unspoiled,
)

from fedpareto.fitness.score import macs_of
from fedpareto.supernet.common.errors import ArchitectureError, UserError
from fedpareto.supernet.genes import intersection
from fedpareto.supernet.networks.weights import extract
from fedpareto.supernet.slices import slices
from fedpareto.training.clients.capabilities import Capability, capabilities
from fedpareto.training.clients.compute import training_macs
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.methods import CoTrainConfig, FedAvgConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.local_objective import CoTraining, Standard
from fedpareto.training.messages import tensor_bytes
from fedpareto.training.methods.cotrain import CoTrain
from fedpareto.training.methods.protocol import Method, MethodContext
from fedpareto.training.methods.registry import make_method
from fedpareto.training.methods.schedules import learning_rate
from fedpareto.training.runs.state import Counts, RunState

_START = RunState(0, Counts.zero(5), (0,) * len(micro_entries()))


def _method(clients: list[Capability] | None = None, **changes: Any) -> Method:
    config = short_config(**changes)
    clients = clients or capabilities(config.clients, MICRO, config.seed)
    return make_method(MethodContext(config, MICRO, micro_entries(), clients))


def _write(folder: Path, index: int) -> str:
    path = folder / "network.json"
    path.write_text(json.dumps(micro_entries()[index].architecture.to_json()))
    return str(path)


def test_fedavg_trains_one_network_by_the_numbers_of_images(tmp_path: Path) -> None:
    config = short_config(method="fedavg", fedavg=FedAvgConfig(_write(tmp_path, 2)))
    run, engine = spoiled_run(tmp_path / "run", unspoiled, config)
    state, _ = train_run(run)
    assert {update.task.architecture for update in engine.updates} == {micro_entries()[2].architecture}
    assert run.method.weight_by_examples
    assert run.method.probes(state) == [micro_entries()[2]]
    assert recorder(run).records[0].beta is None


def test_fedavg_without_an_architecture_trains_the_largest_that_every_client_runs() -> None:
    entries = micro_entries()
    assert _method(method="fedavg").probes(_START) == [entries[-1]]
    weak = [Capability(), Capability(macs=entries[2].macs), Capability(), Capability(), Capability()]
    assert _method(weak, method="fedavg").probes(_START) == [entries[2]]


def test_fedavg_draws_only_clients_that_run_its_network(tmp_path: Path) -> None:
    entries = micro_entries()
    clients = [Capability(macs=entries[1].macs) if client < 3 else Capability() for client in range(5)]
    method = _method(clients, method="fedavg", fedavg=FedAvgConfig(_write(tmp_path, 4)))
    assert sorted(method.assign(_START, range(5)).assigned) == [3, 4]


def test_fedavg_refuses_a_network_that_is_not_there_or_that_nobody_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.json"):
        _method(method="fedavg", fedavg=FedAvgConfig(str(tmp_path / "nothing.json")))
    other = tmp_path / "other.json"
    text = json.dumps(dataclasses.replace(smallest(), resolution=9).to_json())
    other.write_text(text)
    with pytest.raises(ArchitectureError, match=r"fedavg\.architecture .*other\.json: .*resolution is 9; allowed: 8"):
        _method(method="fedavg", fedavg=FedAvgConfig(str(other)))
    weak = [Capability(macs=micro_entries()[0].macs)] * 5
    with pytest.raises(UserError, match="no client can run the"):
        _method(weak, method="fedavg", fedavg=FedAvgConfig(_write(tmp_path, 4)))


def _cotrain(clients: list[Capability] | None = None, **fields: Any) -> Method:
    method = _method(clients, method="cotrain", cotrain=CoTrainConfig(**fields))
    assert isinstance(method, CoTrain)
    assert method.weight_by_examples
    return method


def test_co_training_gives_every_client_its_envelope_and_what_lies_inside() -> None:
    entries = micro_entries()
    limits = [entries[0].macs, entries[1].macs, entries[3].macs, entries[4].macs - 1, None]
    method = _cotrain([Capability(macs=macs) for macs in limits])
    envelopes = [entries[0], entries[1], entries[3], entries[3], entries[-1]]
    plan = method.assign(_START, range(5))
    assert len(plan.assigned) == 3
    assert set(plan.weights.values()) == {1.0}
    for client, entry in plan.assigned.items():
        assert entry == envelopes[client]
        objective = plan.objectives[client]
        assert isinstance(objective, CoTraining)
        assert (objective.distillation, objective.temperature) == (0.5, 1.0)
        outer = slices(MICRO, entry.architecture)
        expected = [intersection(MICRO, e.architecture, entry.architecture) for e in entries if e.macs <= entry.macs]
        smaller = [architecture for architecture in dict.fromkeys(expected) if architecture != entry.architecture]
        assert objective.always == tuple(smaller[:1])
        assert objective.drawn == tuple(smaller[1:])
        for architecture in objective.drawn:
            assert macs_of(MICRO, architecture) <= entry.macs
            for name, index in slices(MICRO, architecture).items():
                assert all(o.start <= i.start <= i.stop <= o.stop for i, o in zip(index, outer[name], strict=True))


def test_what_co_training_clients_do_is_worked_out_once_for_each_envelope() -> None:
    entries = micro_entries()
    method = _cotrain([Capability(macs=entries[client % 2].macs) for client in range(3_000)])
    plans = [method.assign(dataclasses.replace(_START, round=number), range(3_000)) for number in range(10)]
    for plan in plans:
        assert {client: entry.macs for client, entry in plan.assigned.items()} == {
            client: entries[client % 2].macs for client in plan.assigned
        }
    # Clients of one envelope are given one and the same value.
    given = [(client % 2, objective) for plan in plans for client, objective in plan.objectives.items()]
    assert len(given) > 4
    assert {parity: len({id(objective) for own, objective in given if own == parity}) for parity in (0, 1)} == {
        0: 1,
        1: 1,
    }


def test_the_weakest_client_trains_the_smallest_network_alone() -> None:
    weak = _cotrain([Capability(macs=micro_entries()[0].macs)] * 5)
    objective = next(iter(weak.assign(_START, range(5)).objectives.values()))
    assert objective == CoTraining((), (), 0.5, 1.0)


def test_the_switches_of_co_training_leave_networks_out() -> None:
    def found(**fields: Any) -> tuple[Any, Any]:
        plan = _cotrain(**fields).assign(_START, range(5))
        client = next(iter(plan.assigned))
        return plan.assigned[client].architecture, plan.objectives[client]

    assert found(networks="smallest") == (smallest(), Standard())
    assert found(networks="largest") == (largest(), Standard())
    assert found(networks="extremes", temperature=2.0) == (largest(), CoTraining((smallest(),), (), 0.5, 2.0))
    outer, objective = found(distillation=0.0)
    assert outer == largest()
    assert objective.distillation == 0
    assert objective.always == (smallest(),)
    assert len(objective.drawn) == len(micro_entries()) - 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"distillation": 1.5}, "cotrain.distillation is 1.5"), ({"temperature": 0.0}, "cotrain.temperature is 0.0")],
)
def test_co_training_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CoTrainConfig(**fields)


@pytest.mark.parametrize("method", ["deepfednas", "superfednas", "cotrain"])
def test_clients_receive_the_slices_of_what_they_can_run_and_nothing_more(tmp_path: Path, method: Any) -> None:
    entries = micro_entries()
    limits = tuple(str(entries[index].macs) for index in (0, 2, 5, 3, 1))
    config = short_config(method=method, rounds=6, clients=ClientsConfig(count=5, per_round=3, max_macs=limits))
    run, engine = spoiled_run(tmp_path, unspoiled, config)
    train_run(run)
    for update in engine.updates:
        task = update.task
        assert macs_of(MICRO, task.architecture) <= int(limits[task.client])
        assert update.traffic.down == tensor_bytes(extract(MICRO, random_tensors(), task.architecture))
        if method == "cotrain":
            assert task.architecture == entries[(0, 2, 5, 3, 1)[task.client]].architecture


@pytest.mark.slow
def test_compute_is_counted_and_ends_training_with_its_own_schedule(tmp_path: Path) -> None:
    free = simulated_run(tmp_path / "free", short_config(rounds=12))
    state, _ = train_run(free)
    spent = [record.compute for record in recorder(free).records]
    for record in recorder(free).records:
        macs = [training_macs(c["macs"], c["examples"], 1, 8) for c in record.clients]
        assert record.compute == sum(macs)
        assert [c["compute"] for c in record.clients] == macs
    assert state.compute == sum(spent)
    limit = sum(spent[:5]) + spent[5] // 2
    run = simulated_run(tmp_path / "limited", short_config(rounds=1, compute=str(limit)))
    state, _ = train_run(run)
    records = recorder(run).records
    assert state.compute - records[-1].compute < limit
    assert 0.995 * limit <= state.compute < limit + 8 * macs_of(MICRO, largest())
    assert records[-1].probes
    assert records[-1].done == 1
    before = 0
    for record in records:
        assert record.lr == pytest.approx(learning_rate("cosine", 0.05, before, limit))
        before += record.compute
        assert record.done == pytest.approx(min(1.0, before / limit))


def test_methods_that_private_rounds_do_not_describe_are_refused() -> None:
    from fedpareto.training.config.privacy import PrivacyConfig

    with pytest.raises(UserError, match=r"method cotrain does not go with privacy\.clip; private are: fedpareto"):
        RunConfig(method="cotrain", privacy=PrivacyConfig(clip=1.0))
    method = _method(method="fedavg", privacy=PrivacyConfig(clip=1.0))
    assert not method.weight_by_examples
