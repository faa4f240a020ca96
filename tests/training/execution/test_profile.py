import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.execution import ExecutionConfig, Precision, PrecisionChoice
from fedpareto.training.execution.machine import THIS_MACHINE
from fedpareto.training.execution.profile import (
    Profile,
    apply_to_torch,
    check_possible,
    complete_profile,
)

_CPU, _GPU = torch.device("cpu"), torch.device("cuda:0")

#: No field has its default value.
_OTHER = Profile("bf16", "contiguous", fused=False, compiled=True, graphs=False, workers=3, threads=2)


def _gpu_of(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> torch.device:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    return _GPU


def _without_onednn(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    return _CPU


def test_a_cpu_can_do_fp32_first_and_never_tf32() -> None:
    possible = THIS_MACHINE.precisions(_CPU)
    assert possible[0] == "fp32"
    assert set(possible) <= {"fp32", "bf16", "fp16"}
    assert len(set(possible)) == len(possible)


def test_a_cpu_without_onednn_can_do_fp32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert THIS_MACHINE.precisions(_without_onednn(monkeypatch)) == ["fp32"]


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((5, 2), ["fp32"]),
        ((5, 3), ["fp32", "fp16"]),
        ((7, 0), ["fp32", "fp16"]),
        ((7, 5), ["fp32", "fp16"]),
        ((8, 0), ["fp32", "tf32", "bf16", "fp16"]),
        ((9, 0), ["fp32", "tf32", "bf16", "fp16"]),
        ((12, 0), ["fp32", "tf32", "bf16", "fp16"]),
    ],
)
def test_what_a_gpu_can_do_depends_on_its_generation(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: list[Precision]
) -> None:
    assert THIS_MACHINE.precisions(_gpu_of(monkeypatch, capability)) == expected


def test_a_gpu_is_asked_for_its_own_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    generations = {0: (7, 0), 1: (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generations[device.index])
    assert THIS_MACHINE.precisions(torch.device("cuda:0")) == ["fp32", "fp16"]
    assert THIS_MACHINE.precisions(torch.device("cuda:1")) == ["fp32", "tf32", "bf16", "fp16"]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_a_precision_the_cpu_lacks_is_refused_with_what_it_can_do(
    monkeypatch: pytest.MonkeyPatch, precision: PrecisionChoice
) -> None:
    device = _without_onednn(monkeypatch)
    with pytest.raises(UserError) as caught:
        check_possible(device, precision, ExecutionConfig())
    assert str(caught.value) == f"precision {precision} is not possible on cpu; it can do: fp32 (or say auto)"


def test_a_precision_an_old_gpu_lacks_is_refused_with_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    device = _gpu_of(monkeypatch, (7, 0))
    with pytest.raises(UserError, match=r"^precision bf16 is not possible on cuda:0; it can do: fp32, fp16 \(or say"):
        check_possible(device, "bf16", ExecutionConfig())


@pytest.mark.parametrize("precision", ["auto", "fp32", "tf32", "bf16", "fp16"])
def test_what_a_device_can_do_is_not_refused(monkeypatch: pytest.MonkeyPatch, precision: PrecisionChoice) -> None:
    check_possible(_gpu_of(monkeypatch, (8, 0)), precision, ExecutionConfig())


def test_auto_is_possible_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    check_possible(_without_onednn(monkeypatch), "auto", ExecutionConfig())
    check_possible(_gpu_of(monkeypatch, (3, 0)), "auto", ExecutionConfig())


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_graphs_need_a_gpu(precision: PrecisionChoice) -> None:
    with pytest.raises(
        UserError, match=r"^execution\.graphs needs a GPU and the device is cpu; say --execution\.graphs false$"
    ):
        check_possible(_CPU, precision, ExecutionConfig(graphs=True))
    for graphs in (False, None):
        check_possible(_CPU, precision, ExecutionConfig(graphs=graphs))


def test_graphs_are_not_possible_with_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    device = _gpu_of(monkeypatch, (9, 0))
    with pytest.raises(UserError, match=r"^execution\.graphs is not possible with fp16,.*; use bf16$"):
        check_possible(device, "fp16", ExecutionConfig(graphs=True))
    for precision in ("auto", "fp32", "tf32", "bf16"):
        check_possible(device, precision, ExecutionConfig(graphs=True))
    check_possible(device, "fp16", ExecutionConfig(graphs=False))


@pytest.mark.parametrize("name", ["workers", "threads"])
@pytest.mark.parametrize("value", [0, -1])
def test_less_than_one_worker_or_thread_is_refused(name: str, value: int) -> None:
    fields: dict[str, Any] = {name: value}
    with pytest.raises(UserError, match=rf"^execution\.{name} is {value}; it must be at least 1$"):
        ExecutionConfig(**fields)


def test_compiled_steps_and_graphs_exclude_each_other() -> None:
    with pytest.raises(UserError, match=r"^execution\.compiled and execution\.graphs exclude each other; choose one$"):
        ExecutionConfig(compiled=True, graphs=True)
    for compiled, graphs in ((True, False), (True, None), (False, True)):
        ExecutionConfig(compiled=compiled, graphs=graphs)


@pytest.mark.parametrize("profile", [Profile(), _OTHER])
def test_a_profile_as_a_configuration_leaves_nothing_out_and_comes_back(profile: Profile) -> None:
    chosen = profile.chosen()
    assert None not in dataclasses.asdict(chosen).values()
    assert {"precision": profile.precision, **dataclasses.asdict(chosen)} == dataclasses.asdict(profile)
    assert complete_profile(profile.precision, chosen) == profile


@pytest.mark.parametrize("name", ["memory_format", "fused", "graphs", "workers", "threads"])
def test_a_configuration_that_leaves_something_out_is_no_profile(name: str) -> None:
    missing: dict[str, Any] = {name: None}
    assert complete_profile("fp32", dataclasses.replace(Profile().chosen(), **missing)) is None


def test_a_precision_that_is_to_be_chosen_is_no_profile() -> None:
    assert complete_profile("auto", Profile().chosen()) is None


def test_torch_knows_the_memory_format_of_a_profile() -> None:
    assert Profile(memory_format="channels_last").torch_format == torch.channels_last
    assert Profile(memory_format="contiguous").torch_format == torch.contiguous_format


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (Profile(), "channels-last fp32, 1 client at a time on 1 thread"),
        (Profile(threads=2), "channels-last fp32, 1 client at a time on 2 threads"),
        (Profile(workers=4), "channels-last fp32, 4 clients at a time on 1 thread each"),
        (
            Profile("bf16", "contiguous", workers=2, threads=3),
            "contiguous bf16, 2 clients at a time on 3 threads each",
        ),
        (Profile("tf32", graphs=True), "channels-last tf32 graphs, 1 client at a time on 1 thread"),
        (
            Profile("bf16", fused=False, compiled=True, workers=2),
            "channels-last bf16 compiled optimizer not fused, 2 clients at a time on 1 thread each",
        ),
    ],
)
def test_a_profile_reads_as_words(profile: Profile, expected: str) -> None:
    assert str(profile) == expected


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """Put settings of the whole process back; monkeypatch cannot, since torch computes them."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    cudnn.deterministic = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before


@pytest.mark.usefixtures("torch_settings")
def test_tf32_is_allowed_for_tf32_alone_and_kernels_are_always_deterministic() -> None:
    def applied(precision: Precision) -> tuple[bool, bool, bool]:
        apply_to_torch(Profile(precision))
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        return matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic

    assert applied("tf32") == (True, True, True)
    assert applied("fp32") == (False, False, True)
    assert applied("tf32") == (True, True, True)
    assert applied("bf16") == (False, False, True)
    assert applied("fp16") == (False, False, True)


def test_graphs_need_the_fused_optimizer() -> None:
    with pytest.raises(UserError, match=r"^execution\.graphs needs the fused optimizer"):
        ExecutionConfig(graphs=True, fused=False)
    with pytest.raises(UserError, match=r"^execution\.graphs needs the fused optimizer"):
        Profile(graphs=True, fused=False)
