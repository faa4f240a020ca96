"""Clients that are gone, late or broken, lines that are lost, and quorums."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.runs.federation import MICRO
from helpers.runs.flower import (
    RAISED,
    Error,
    Honest,
    LocalLink,
    Message,
    Reaction,
    Spoil,
    engine_of,
    honest,
    lost,
    only,
    prepared_run,
    trained,
)
from helpers.runs.flower_rounds import FirstRounds, a_task, by_client, flower, impatient, rarely, ready
from helpers.runs.flower_spoils import BIAS, ODD, filled, of_job, of_tensor
from helpers.runs.simulation import Recorder, recorder, same_bytes

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.clients.trainer import LocalTrainer
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.flower.relay_socket import LineLost
from fedpareto.training.engines.protocol import EngineError
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.setup import assemble, new_run


def test_a_client_that_is_not_there_is_drawn_no_more(config: RunConfig, link: LocalLink) -> None:
    two = dataclasses.replace(config, rounds=2, evaluation=rarely(config))

    def spoil(message: Message, answer: Callable[[], Honest]) -> Reaction:
        if message.asked == "train" and message.fields["jobs"][0]["round"] == 1:
            link.online.pop(f"node-{ODD}", None)
        return answer()

    link.spoil = spoil
    run, state, _ = trained(two, link)
    first, second = recorder(run).records
    assert state.failures == {"lost": 1}
    assert by_client(first)[ODD]["failure"] == "lost"
    assert sorted(by_client(second)) == [0, 1, 3]


def test_a_client_that_leaves_after_it_was_drawn_is_offline(config: RunConfig, link: LocalLink) -> None:
    run, state, models = prepared_run(config, link)
    looks = itertools.count()

    def before(what: str) -> None:
        # It is there when the clients are drawn, and no more when they are asked.
        if what == "nodes" and next(looks) == 1:
            del link.online[f"node-{ODD}"]

    link.before = before
    state = train(run, state, models)
    assert state.failures == {"offline": 1}
    record = recorder(run).records[0]
    assert by_client(record)[ODD]["failure"] == "offline"
    assert record.traffic.down == sum(message.size for message in link.asked("train"))


def test_a_client_that_never_answers_is_timed_out_and_has_to_speak_before_it_trains_again(
    config: RunConfig, link: LocalLink, without: Tensors
) -> None:
    silent = {"train"}
    link.spoil = lambda message, answer: None if message.client == ODD and message.asked in silent else answer()
    run, state, models = prepared_run(config, link)
    engine = engine_of(run)
    engine._config = dataclasses.replace(engine._config, deadline=0.02)
    silent.add("describe")
    state = train(run, state, models)
    assert state.failures == {"timeout": 1}
    assert same_bytes(models.supernet, without)
    assert [engine.available() for _ in range(3)] == [[0, 1, 3]] * 3
    silent.clear()
    assert [engine.available(), engine.available()][-1] == [0, 1, 2, 3]
    assert [message.client for message in link.asked("describe")] == [0, 1, 2, 3, ODD]


@pytest.mark.parametrize("client", range(4))
def test_a_client_that_failed_does_not_count_as_trained(rounds: FirstRounds, tmp_path: Path, client: int) -> None:
    run, well, _ = rounds.train(tmp_path / "well", honest)
    spoiled, state, _ = rounds.train(tmp_path / "spoiled", of_job(examples=-1), client)
    macs = [{told["client"]: told["macs"] for told in recorder(one).records[0].clients} for one in (run, spoiled)]
    assert macs[0] == macs[1]
    assert sum(state.trained) == sum(well.trained) - 1 == 3
    for ours, all_ in ((state.counts.smallest, well.counts.smallest), (state.counts.largest, well.counts.largest)):
        assert ours == tuple(0 if number == client else count for number, count in enumerate(all_))


def test_failures_of_several_kinds_are_counted_each_and_kept_with_the_run(config: RunConfig, link: LocalLink) -> None:
    spoils: dict[int, Spoil] = {0: of_job(loss="x"), 1: of_tensor(BIAS, filled(float("nan"))), 2: of_job(examples=0)}
    config = dataclasses.replace(config, rounds=2, flower=flower(quorum=0.25), evaluation=rarely(config))
    link.spoil = lambda message, answer: (
        spoils.get(message.client, honest)(message, answer) if message.asked == "train" else answer()
    )
    run, state, _ = trained(config, link)
    assert state.failures == {"malformed": 2, "non-finite": 2, "examples": 2}
    assert load_checkpoint(newest_checkpoint(Path(str(config.output))), MICRO).state.failures == state.failures
    for record in recorder(run).records:
        assert record.failures == {"malformed": 1, "non-finite": 1, "examples": 1}
        assert record.traffic.up == sum(
            link.bytes_up[m.name] for m in link.asked("train") if m.fields["jobs"][0]["round"] == record.round
        )


@pytest.mark.parametrize(("quorum", "fails"), [(0.5, 2), (0.75, 1), (0.25, 3), (0.01, 3)])
def test_a_round_with_a_quorum_is_a_round(config: RunConfig, link: LocalLink, quorum: float, fails: int) -> None:
    link.spoil = lambda message, answer: (
        Error(RAISED) if message.asked == "train" and message.client < fails else answer()
    )
    config = dataclasses.replace(config, flower=flower(quorum=quorum, retries=2), evaluation=rarely(config))
    _, state, _ = trained(config, link)
    assert (state.round, state.failures) == (1, {"error": fails})
    # Nobody is asked again once there are enough.
    assert len(link.asked("train")) == 4


@pytest.mark.parametrize(("quorum", "fails"), [(0.51, 2), (1.0, 1), (0.26, 3), (0.01, 4)])
def test_a_round_without_a_quorum_is_tried_again_and_then_ends_the_run(
    config: RunConfig, link: LocalLink, quorum: float, fails: int
) -> None:
    link.spoil = lambda message, answer: (
        Error(RAISED, "ImportError") if message.asked == "train" and message.client < fails else answer()
    )
    config = dataclasses.replace(config, flower=flower(quorum=quorum, retries=2))
    run, state, models = prepared_run(config, link)
    start = {name: tensor.clone() for name, tensor in models.supernet.items()}
    with pytest.raises(UserError) as caught:
        train(run, state, models)
    message = str(caught.value)
    who = "all 4 clients" if fails == 4 else f"{fails} of 4 clients"
    assert f"{who} of round 1 failed, asked 3 times (client " in message
    assert ": ImportError)" in message
    assert f"round 0 is kept in {newest_checkpoint(Path(str(config.output)))}" in message
    assert message.endswith(f"go on with: train-supernet --resume {config.output}")
    assert "\n" not in message
    assert same_bytes(models.supernet, start)
    (lost,) = recorder(run).lost
    assert lost.failures == {"error": 3 * fails}
    outcome = {client["client"]: client.get("failure") for client in lost.clients}
    assert outcome == {client: "error" if client < fails else None for client in range(4)}
    # Those that answered are not asked again.
    asked = [message.client for message in link.asked("train")]
    assert [asked.count(client) for client in range(4)] == [3 if client < fails else 1 for client in range(4)]


def test_whoever_asks_to_stop_does_not_wait_for_clients_nor_for_another_try(config: RunConfig, link: LocalLink) -> None:
    config = dataclasses.replace(config, flower=flower(quorum=1.0, retries=2, patience=3600.0, min_clients=1))
    prepared = new_run(config, SILENT, link)
    start, asked = prepared.checkpoint, [False]
    run = assemble(prepared, Recorder(), lambda: asked[0])

    def fail(message: Message, answer: Callable[[], Honest]) -> Reaction:
        if message.asked != "train":
            return answer()
        asked[0] = True
        return Error(RAISED, "ImportError")

    link.spoil = fail
    state = train(run, start.state, start.models)
    assert (state.round, len(link.asked("train"))) == (0, 4)
    (lost,) = recorder(run).lost
    assert lost.failures == {"error": 4}
    # Too few are there, for an hour if need be.
    link.online.clear()
    assert train(run, state, start.models).round == 0
    assert len(recorder(run).lost) == 1
    assert load_checkpoint(newest_checkpoint(Path(str(config.output))), MICRO).state == state


def test_a_client_that_answers_when_it_is_asked_again_is_merged(
    config: RunConfig, link: LocalLink, everyone: Tensors
) -> None:
    tries = itertools.count()

    def flaky(message: Message, answer: Callable[[], Honest]) -> Reaction:
        return answer() if next(tries) else Error(RAISED)

    link.spoil = only(ODD, "train", flaky)
    run, state, tensors = trained(dataclasses.replace(config, flower=flower(quorum=1.0, retries=1)), link)
    assert state.failures == {"error": 1}
    (record,) = recorder(run).records
    told = by_client(record)[ODD]
    assert told["failed_before"] == ["error"]
    assert "failure" not in told
    assert record.traffic.down == sum(message.size for message in link.asked("train"))
    assert recorder(run).clients == [(1, 1, 4), (1, 2, 4), (1, 3, 4), (1, 4, 4), (1, 4, 4)]
    for name, tensor in everyone.items():
        # It is added up last; that is all.
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_line_lost_in_mid_round_costs_the_answers_that_are_missing(config: RunConfig, link: LocalLink) -> None:
    run, state, models = prepared_run(config, link)
    link.pick = lambda waiting: waiting[:1]
    collected = itertools.count()

    def before(what: str) -> None:
        if what == "collect" and link.asked("train") and not link.asked("calibrate") and next(collected) == 2:
            raise LineLost("killed")

    link.before = before
    state = train(run, state, models)
    assert (state.round, state.failures) == (1, {"lost": 2})
    assert recorder(run).records[0].traffic.down == sum(message.size for message in link.asked("train"))


def test_a_line_lost_for_good_ends_the_run_with_its_last_round_kept(config: RunConfig, link: LocalLink) -> None:
    run, state, models = prepared_run(config, link)
    impatient(run)
    link.before = lost("nodes")
    with pytest.raises(UserError) as caught:
        train(run, state, models)
    message = str(caught.value)
    assert "127.0.0.1:8000 could not be reached for 0.05 s: the SuperLink was killed; round 0 is kept in " in message
    assert message.endswith(f"go on with: train-supernet --resume {config.output}")


def test_a_line_lost_before_the_tasks_are_sent_costs_a_try_and_no_more(
    config: RunConfig, link: LocalLink, everyone: Tensors
) -> None:
    run, state, models = prepared_run(dataclasses.replace(config, flower=flower(quorum=1.0, retries=1)), link)
    looks = itertools.count()

    def before(what: str) -> None:
        # The first look draws the clients, the second would ask them.
        if what == "nodes" and next(looks) == 1:
            raise LineLost("killed")

    link.before = before
    state = train(run, state, models)
    assert state.failures == {"offline": 4}
    assert same_bytes(models.supernet, everyone)


def test_too_few_clients_are_waited_for_and_then_named(config: RunConfig, link: LocalLink) -> None:
    del link.online["node-1"], link.online["node-2"]
    with pytest.raises(EngineError) as caught:
        prepared_run(dataclasses.replace(config, flower=flower(patience=0.5)), link)
    assert str(caught.value) == (
        "only 2 of at least 4 clients came to 127.0.0.1:8000 in 0.5 s; start more SuperNodes, or lower "
        "--flower.min-clients or --flower.quorum"
    )
    assert not Path(str(config.output)).exists()


def test_a_run_starts_with_as_many_clients_as_it_was_told_to(config: RunConfig, link: LocalLink) -> None:
    del link.online["node-1"]
    run, state, _ = trained(dataclasses.replace(config, flower=flower(min_clients=3)), link)
    assert state.failures == {}
    assert sorted(by_client(recorder(run).records[0])) == [0, 2, 3]


def test_a_client_that_raises_inside_the_trainer_is_an_error_of_ours_to_see(
    config: RunConfig, link: LocalLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The node lets what is no answer through: Flower reports it with its own code.
    run = ready(config, link)

    def broken(*args: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(LocalTrainer, "train", broken)
    task = dataclasses.replace(a_task(engine_of(run)), seed=12345)
    with pytest.raises(RuntimeError, match="broken"):
        list(engine_of(run).run([task]))
