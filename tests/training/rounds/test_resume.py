import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.runs.federation import micro_config
from helpers.runs.simulation import Recorder

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.files import write_recorded
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import LARGEST_WEIGHT, ServerConfig
from fedpareto.training.engines.simulation.federation import SimulatedFederation
from fedpareto.training.execution.machine import THIS_MACHINE
from fedpareto.training.execution.profile import Profile
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import STATE, load_checkpoint, newest_checkpoint
from fedpareto.training.runs.folder import CONFIG, read_run_config, read_space
from fedpareto.training.setup import Prepared, assemble, new_run, resumed_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run before its first round; preparing to resume it writes nothing."""
    return new_run(micro_config(tmp_path_factory.mktemp("fresh"), rounds=2), SILENT).folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that may be trained."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


@functools.cache
def _config(run: Path) -> RunConfig:
    return read_run_config(run)


def _with(config: RunConfig, **changes: Any) -> RunConfig:
    """Return the configuration with fields replaced; those of a group are named GROUP__FIELD."""
    for name, value in changes.items():
        group, _, field = name.partition("__")
        new = dataclasses.replace(getattr(config, group), **{field: value}) if field else value
        config = dataclasses.replace(config, **{group: new})
    return config


def _resume(run: Path, **changes: Any) -> tuple[Prepared, list[str]]:
    """Resume with changes; also return the remarks on them."""
    remarks: list[str] = []
    prepared = resumed_run(run, _with(_config(run), **changes), ProgressListener(remark=remarks.append))
    assert remarks.pop(0).startswith(f"clients train {prepared.profile}: ")
    return prepared, remarks


def _refused(run: Path, **changes: Any) -> str:
    """Check that resuming with changes is refused in one line without a remark; return the line."""
    remarks: list[str] = []
    with pytest.raises(UserError) as caught:
        resumed_run(run, _with(_config(run), **changes), ProgressListener(remark=remarks.append))
    assert remarks == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _remark(name: str, old: object, new: object) -> str:
    return f"{name} is {new} from here on; it was {old}: the run ends with other bytes"


def test_an_unchanged_run_is_resumed_without_a_remark(run: Path) -> None:
    prepared, remarks = _resume(run)
    assert remarks == []
    assert prepared.profile == Profile()
    assert prepared.config == dataclasses.replace(_config(run), output=str(run))


def test_a_lower_batch_size_is_taken_with_a_remark(run: Path) -> None:
    for lower in (15, 2):
        prepared, remarks = _resume(run, client__batch_size=lower)
        assert prepared.config.client.batch == lower
        assert remarks == [_remark("client.batch_size", 16, lower)]


@pytest.mark.parametrize("larger", [17, 64])
def test_a_larger_batch_size_is_refused_since_clients_may_hold_fewer_images(run: Path, larger: int) -> None:
    assert _refused(run, client__batch_size=larger) == (
        f"client.batch_size is {larger}, but {run} was trained with 16 and its clients may hold no more images; "
        "a resumed run may only lower it"
    )


@pytest.mark.parametrize("name", ["data__crop", "data__flip", "data__cutout", "client__batch_size"])
def test_what_is_left_out_is_what_a_new_run_is_given(run: Path, name: str) -> None:
    prepared, remarks = _resume(run, **{name: None})
    assert remarks == []
    assert prepared.config == dataclasses.replace(_config(run), output=str(run))


@pytest.mark.parametrize("size", [32, 128])
def test_the_batch_size_of_evaluation_may_change_both_ways(run: Path, size: int) -> None:
    prepared, remarks = _resume(run, evaluation__batch_size=size)
    assert prepared.config.evaluation.batch_size == size
    assert remarks == [_remark("evaluation.batch_size", 64, size)]


def test_another_device_is_taken_with_a_remark(run: Path) -> None:
    prepared, remarks = _resume(run, device="auto")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert remarks == ([] if expected == "cpu" else [_remark("device", "cpu", "cuda:0")])
    assert isinstance(prepared.federation, SimulatedFederation)
    assert prepared.federation.data.images.device.type == expected
    assert {tensor.device.type for tensor in prepared.checkpoint.models.supernet.values()} == {expected}


def test_a_device_the_machine_lacks_is_an_error(run: Path) -> None:
    with pytest.raises(UserError, match=r"device 'cuda:99' is not on this machine"):
        resumed_run(run, _with(_config(run), device="cuda:99"), SILENT)


@pytest.mark.skipif("bf16" not in THIS_MACHINE.precisions(torch.device("cpu")), reason="the CPU cannot do bf16")
def test_another_precision_is_taken_with_a_remark(run: Path) -> None:
    prepared, remarks = _resume(run, precision="bf16")
    assert prepared.profile == Profile("bf16")
    assert prepared.config.precision == "bf16"
    assert remarks == [_remark("precision", "fp32", "bf16")]


def test_a_precision_the_device_lacks_is_an_error(run: Path) -> None:
    with pytest.raises(UserError, match="precision tf32 is not possible on cpu"):
        resumed_run(run, _with(_config(run), precision="tf32"), SILENT)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("memory_format", "channels_last", "contiguous"),
        ("fused", True, False),
        ("compiled", False, True),
        ("threads", 1, 2),
    ],
)
def test_another_execution_is_taken_with_a_remark(run: Path, name: str, old: object, new: object) -> None:
    prepared, remarks = _resume(run, **{f"execution__{name}": new})
    assert getattr(prepared.profile, name) == new
    assert getattr(prepared.config.execution, name) == new
    assert remarks == [_remark(f"execution.{name}", old, new)]


def test_the_supernet_has_the_memory_format_of_the_execution_and_the_same_values(run: Path) -> None:
    last, contiguous = (
        _resume(run, execution__memory_format=name)[0].checkpoint.models.supernet
        for name in ("channels_last", "contiguous")
    )
    for name, tensor in last.items():
        assert torch.equal(tensor, contiguous[name])
        assert contiguous[name].is_contiguous()
        assert tensor.ndim != 4 or tensor.is_contiguous(memory_format=torch.channels_last)


def test_every_change_has_a_remark_of_its_own(run: Path) -> None:
    _, remarks = _resume(run, client__batch_size=8, evaluation__batch_size=32, execution__threads=2)
    assert remarks == [
        _remark("client.batch_size", 16, 8),
        _remark("evaluation.batch_size", 64, 32),
        _remark("execution.threads", 1, 2),
    ]


def test_where_things_are_and_what_is_reported_change_without_a_remark(copy: Path) -> None:
    changes = {"output": "ignored", "data__root": "else", "checkpoint__keep": 5, "execution__workers": 2}
    prepared, remarks = _resume(copy, **changes)
    assert remarks == []
    assert prepared.folder == copy
    assert prepared.config.output == str(copy)
    assert prepared.config.checkpoint.keep == 5


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("space", "mobilenet-tiny"),
        ("cache", None),
        ("seed", 1),
        ("method", "superfednas"),
        ("data.validation", 0.2),
        ("data.crop", 2),
        ("data.flip", True),
        ("data.cutout", 1),
        ("data.randaugment", 1),
        ("data.magnitude", 8),
        ("data.mixup", 0.1),
        ("data.cutmix", 0.1),
        ("partition.alpha", 2.0),
        ("clients.count", 7),
        ("clients.per_round", 2),
        ("client.epochs", 2),
        ("client.lr", 0.1),
        ("client.lr_schedule", "constant"),
        ("client.momentum", 0.5),
        ("client.weight_decay", 0.0),
        ("client.clip", 1.0),
        ("client.label_smoothing", 0.1),
        ("client.logit_adjustment", 0.5),
        ("server.largest_weight", 0.5),
        ("server.weight_by_examples", True),
        ("server.momentum", 0.5),
        ("server.lr", 0.5),
        ("evaluation.every", 1),
        ("evaluation.probes", 2),
        ("evaluation.calibration_images", 32),
        ("evaluation.metric", "balanced"),
        ("client.imbalance", "adjustment"),
    ],
)
def test_nothing_else_may_change(run: Path, name: str, new: object) -> None:
    message = _refused(run, **{name.replace(".", "__"): new})
    assert message.startswith(f"{name} is {new}, but {run} was trained with ")
    assert message.endswith(
        "; a resumed run keeps its configuration: drop the change, or start a new run with another --output"
    )


@pytest.mark.slow
def test_a_run_goes_on_as_it_was_adapted_and_its_checkpoints_say_so(copy: Path) -> None:
    changes = {"client__batch_size": 8, "evaluation__batch_size": 32, "execution__memory_format": "contiguous"}
    prepared, remarks = _resume(copy, **changes)
    assert len(remarks) == 3
    tracker, checkpoint = Recorder(), prepared.checkpoint
    train(assemble(prepared, tracker, lambda: False), checkpoint.state, checkpoint.models)
    assert [record.round for record in tracker.records] == [1, 2]
    config = load_checkpoint(newest_checkpoint(copy), read_space(copy)).config
    assert config["client"]["batch_size"] == 8
    assert config["evaluation"]["batch_size"] == 32
    assert config["execution"]["memory_format"] == "contiguous"
    # Said again, it is no change any more.
    prepared, remarks = _resume(copy, **changes)
    assert remarks == []
    assert prepared.checkpoint.state.round == 2
    assert "with 8 and its clients" in _refused(copy, **changes | {"client__batch_size": 9})


def test_the_folder_of_a_run_of_before_aggregation_had_its_name_is_resumed(copy: Path) -> None:
    config, state = copy / CONFIG, newest_checkpoint(copy) / STATE
    mapping, body = yaml.safe_load(config.read_text()), json.loads(state.read_text())
    for each in (mapping, body["config"]):
        for name in ("aggregation", "trim", "hostile", "max_share", "outlier_factor"):
            del each["server"][name]
        each["server"]["aggregator"] = "average"
    write_recorded(config, yaml.safe_dump(mapping))
    write_recorded(state, json.dumps(body))
    remarks: list[str] = []
    prepared = resumed_run(copy, read_run_config(copy), ProgressListener(remark=remarks.append))
    assert prepared.config.server == ServerConfig(largest_weight=LARGEST_WEIGHT)
    assert len(remarks) == 1


def test_a_resumed_run_keeps_its_rule_of_aggregation(run: Path) -> None:
    assert "server.aggregation is median, but" in _refused(run, server__aggregation="median")
