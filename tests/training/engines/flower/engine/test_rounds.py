"""A round over Flower stays what it is in the simulation."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.runs.flower import (
    LocalLink,
    config_of,
    trained,
)
from helpers.runs.flower_rounds import by_client, flower, rarely
from helpers.runs.simulation import recorder, same_bytes

from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.aggregation.round_results import RoundResults
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.engines.flower.admission import read_bindings
from fedpareto.training.engines.flower.engine import FlowerEngine
from fedpareto.training.engines.flower.federation import ConnectedFederation
from fedpareto.training.rounds import loop
from fedpareto.training.setup import resumed_run


def test_a_resumed_run_knows_whose_its_clients_numbers_are(config: RunConfig, tmp_path: Path) -> None:
    # With TLS nodes have keys, and Flower a number for each.
    (tmp_path / "ca.crt").touch()
    config = dataclasses.replace(config, flower=flower(insecure=False, root_certificates=str(tmp_path / "ca.crt")))

    def nodes(folder: str, ids: Mapping[int, str]) -> LocalLink:
        link = LocalLink(tmp_path / folder)
        link.online = {node: config_of(client) for client, node in ids.items()}
        return link

    first = {client: f"10{client}" for client in range(4)}
    run, _, _ = trained(config, nodes("first", first))
    assert read_bindings(run.folder) == first
    # Another node has come in the place of client 1, before the real one is back.
    told: list[str] = []
    settings = dataclasses.replace(config.flower, min_clients=3)
    again = dataclasses.replace(config, rounds=2, flower=settings)
    resumed = resumed_run(run.folder, again, ProgressListener(remark=told.append), nodes("second", {**first, 1: "666"}))
    assert isinstance(resumed.federation, ConnectedFederation)
    assert sorted(resumed.federation.roster.refresh()) == [0, 2, 3]
    squatter = "node 666 takes no part: it says it is client 1, which is node 101's for the whole run"
    assert [line for line in told if line.startswith(squatter)]


def test_a_client_of_many_images_is_at_most_half_of_a_round_of_connected_ones(
    config: RunConfig, link: LocalLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # fedavg weighs by images, and client 0 has most of them: as much as is believed beside the others.
    config = dataclasses.replace(config, method="fedavg", evaluation=dataclasses.replace(rarely(config), probes=5))
    seen: list[float] = []
    monkeypatch.setattr(FlowerEngine, "examples", lambda self, client: 900 if client == 0 else 100)

    class Seen(RoundResults):
        def __init__(self, *arguments: Any, **rest: Any) -> None:
            super().__init__(*arguments, **rest)
            seen.append(rest["most_examples"])

    monkeypatch.setattr(loop, "RoundResults", Seen)
    trained(config, link)
    assert seen == [300.0]
    limited = dataclasses.replace(config, output=str(tmp_path / "other"), server=ServerConfig(max_share=0.4))
    trained(limited, LocalLink(tmp_path / "link-1", 4))
    assert seen[1:] == [200.0]
    unbounded = dataclasses.replace(config, output=str(tmp_path / "third"), server=ServerConfig(max_share=1.0))
    trained(unbounded, LocalLink(tmp_path / "link-2", 4))
    assert seen[2:] == [float("inf")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "server": ServerConfig(momentum=0.5, weight_by_examples=True),
            "seed": 5,
            "partition": PartitionConfig(alpha=1.0),
            "data": DataConfig("digits", validation=0.5),
        },
        # The last round is as small as what is left.
        {"rounds": 1, "compute": "120M"},
    ],
    ids=["plain", "other", "compute"],
)
def test_a_run_ends_with_the_bytes_of_the_simulated_one(
    config: RunConfig, link: LocalLink, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(
        config, clients=ClientsConfig(count=8, per_round=3), evaluation=rarely(config), **{"rounds": 3, **changes}
    )
    for client in range(4, 8):
        link.online[f"node-{client}"] = {"partition-id": client, "device": "cpu"}
    run, state, tensors = trained(config, link)
    alone = dataclasses.replace(config, engine="in-process", output=str(tmp_path / "alone"))
    simulated, state_alone, tensors_alone = trained(alone, None)
    assert same_bytes(tensors, tensors_alone)
    assert state.round == (3 if config.compute is None else state_alone.round)
    assert (state.counts, state.trained) == (state_alone.counts, state_alone.trained)
    assert state.compute == state_alone.compute
    if config.compute is not None:
        assert any(job["steps"] for message in link.asked("train") for job in message.fields["jobs"])
        assert abs(state.compute - 120_000_000) < 1_200_000
    for record, other in zip(recorder(run).records, recorder(simulated).records, strict=True):
        assert record.train_loss == other.train_loss
        assert [(c["client"], c["macs"], c["examples"]) for c in record.clients] == [
            (c["client"], c["macs"], c["examples"]) for c in other.clients
        ]
    assert link.files() == []


def test_the_order_in_which_answers_come_in_changes_no_byte(
    config: RunConfig, link: LocalLink, everyone: Tensors
) -> None:
    link.pick = lambda waiting: waiting[::-1][:1]
    assert same_bytes(trained(config, link)[2], everyone)


def test_bytes_in_the_records_are_those_of_the_messages(config: RunConfig, link: LocalLink) -> None:
    run, state, _ = trained(config, link)
    (record,) = recorder(run).records
    messages = link.asked("train")
    assert record.traffic.down == sum(message.size for message in messages)
    assert record.traffic.up == sum(link.bytes_up[message.name] for message in messages)
    others = [*link.asked("calibrate"), *link.asked("evaluate")]
    assert len(others) == 2 * config.clients.count
    assert record.evaluation_traffic.down == sum(message.size for message in others)
    assert record.evaluation_traffic.up == sum(link.bytes_up[message.name] for message in others)
    assert state.traffic.down == record.traffic.down + record.evaluation_traffic.down
    assert state.traffic.up == record.traffic.up + record.evaluation_traffic.up
    for message in messages:
        told = by_client(record)[message.client]
        assert (told["bytes_down"], told["bytes_up"]) == (message.size, link.bytes_up[message.name])


def test_a_message_names_nothing_of_the_server(config: RunConfig, link: LocalLink) -> None:
    trained(dataclasses.replace(config, data=dataclasses.replace(config.data, root="/secret/images")), link)
    for message in link.sent:
        assert b"secret" not in message.header
        assert str(config.output).encode() not in message.header
