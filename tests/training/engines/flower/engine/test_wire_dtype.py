"""Weights that travel as bf16."""

import dataclasses
from pathlib import Path

import pytest
import torch
from helpers.runs.flower import (
    LocalLink,
    edited,
    engine_of,
    only,
    prepared_run,
    trained,
)
from helpers.runs.flower_rounds import a_task, flower, rarely
from helpers.runs.flower_spoils import BIAS, ODD
from helpers.runs.simulation import recorder, smallest
from torch import Tensor

from fedpareto.supernet.networks.weights import Tensors, views
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.engine import restored
from fedpareto.training.messages import (
    Update,
    check_update,
)
from fedpareto.training.rounds.loop import train


@pytest.mark.slow
def test_bf16_halves_the_bytes_and_stays_close(config: RunConfig, link: LocalLink) -> None:
    # Steps that do not make chaos of a rounding.
    config = dataclasses.replace(config, client=dataclasses.replace(config.client, lr=1e-3))
    whole = trained(dataclasses.replace(config, output=f"{config.output}-0"), LocalLink(link.folder / "a", 4))[2]
    start = prepared_run(dataclasses.replace(config, output=f"{config.output}-1"), LocalLink(link.folder / "b", 4))[2]
    run, _, tensors = trained(dataclasses.replace(config, flower=flower(wire_dtype="bf16")), link)
    (record,) = recorder(run).records
    for message in link.asked("train"):
        sent = wire.parse_blob(message.blob)
        assert {tensor.dtype for tensor in sent.values()} == {torch.bfloat16}
    values = sum(tensor.numel() for m in link.asked("train") for tensor in wire.parse_blob(m.blob).values())
    assert 2 * values < record.traffic.up < 2.5 * values
    for name, tensor in tensors.items():
        # bf16 has 8 binary digits: what is trained on is that close, and so is what comes back of the change.
        assert (tensor - whole[name]).norm() <= 0.25 * (whole[name] - start.supernet[name]).norm() + 1e-6


@pytest.mark.slow
def test_bf16_does_not_lose_changes_that_are_smaller_than_its_steps(config: RunConfig, tmp_path: Path) -> None:
    def run(dtype: str) -> tuple[Tensors, Tensors]:
        slow = dataclasses.replace(
            config,
            rounds=4,
            output=str(tmp_path / dtype),
            clients=ClientsConfig(count=8, per_round=2),
            client=ClientConfig(epochs=1, batch_size=16, lr=2e-4, lr_schedule="constant", weight_decay=0.0),
            evaluation=rarely(config),
            flower=flower(wire_dtype=dtype),
        )
        run, state, models = prepared_run(slow, LocalLink(tmp_path / f"{dtype}-link", 8))
        start = {name: tensor.clone() for name, tensor in models.supernet.items()}
        train(run, state, models)
        return start, models.supernet

    (start, whole), (_, narrow) = run("fp32"), run("bf16")
    # Norms start at 1, where the next smaller number of bf16 is 1/256 away: none of four rounds moves them so far.
    name = "stages.1.0.expand.norm.weight"
    change, kept = whole[name] - start[name], narrow[name] - start[name]
    assert (start[name] == 1).all()
    assert 0 < change.abs().max() < 1 / 512
    assert torch.equal((start[name] + change).bfloat16().float(), start[name])
    assert (kept - change).norm() < 0.2 * change.norm()


@pytest.mark.parametrize(
    "odd", [torch.ones(3, 1), torch.ones(3, 2, dtype=torch.float32), torch.ones(3, 2).to(torch.int8)]
)
def test_what_cannot_be_added_is_left_to_be_refused(odd: Tensor) -> None:
    sent = {"a": torch.ones(3, 2)}
    assert restored(sent, {"a": odd}, "bf16")["a"] is odd
    assert restored(sent, {"b": odd}, "bf16")["b"] is odd


def test_weights_in_fp32_are_no_change_in_bf16(config: RunConfig, link: LocalLink) -> None:
    # They would be taken for weights as they are, and past whatever bounds a change.
    def spoil(tensors: Tensors) -> None:
        tensors.update({name: tensor.float() for name, tensor in tensors.items()})

    run, state, models = prepared_run(dataclasses.replace(config, flower=flower(wire_dtype="bf16")), link)
    link.spoil = only(ODD, "train", edited(tensors=spoil))
    assert train(run, state, models).failures == {"dtype": 1}
    (failure,) = [each for each in recorder(run).records[0].clients if "failure" in each]
    assert failure["reason"].endswith("came as torch.float32 instead of torch.bfloat16")


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "non-finite"), (3.3e38, "non-finite")])
def test_a_change_that_makes_a_weight_infinite_is_refused(
    config: RunConfig, link: LocalLink, value: float, kind: str
) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors[BIAS] = torch.full((10,), value).bfloat16()

    narrow = dataclasses.replace(config, flower=flower(wire_dtype="bf16"))
    run, state, models = prepared_run(narrow, link)
    models.supernet[BIAS.removeprefix("0/")] += 3.3e38
    link.spoil = only(ODD, "train", edited(tensors=spoil))
    # Weights as large as that are no good to train with either: all that matters is how the answer is counted.
    engine = engine_of(run)
    architecture = smallest(run.space)
    task = dataclasses.replace(a_task(engine), architecture=architecture, client=ODD)
    task = dataclasses.replace(task, tensors=views(run.space, models.supernet, architecture))
    (answer,) = engine.run([task])
    failure = check_update(answer) if isinstance(answer, Update) else answer
    assert failure is not None
    assert failure.kind == kind
    assert state.round == 0
    assert models.velocity is None
