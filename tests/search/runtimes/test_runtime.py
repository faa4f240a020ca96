import sys
import types

import numpy as np
import pytest
import torch
from helpers.runs.federation import micro_space
from torch import nn

from fedpareto.search.profiling.parts import distinct_choices, measurable
from fedpareto.search.runtimes.runtime import Measurable, check_runtime, export_each, open_runtime
from fedpareto.supernet.common.errors import UserError

_CPU = torch.device("cpu")


def _some_blocks(norm: str, count: int) -> list[Measurable]:
    space, generator = micro_space(norm=norm), torch.Generator().manual_seed(0)
    choices = list(distinct_choices(space).values())
    # The first is the stem and the last the head.
    chosen = [choices[0], choices[-1], *choices[1 : -1 : len(choices) // count]]
    return [measurable(space, choice, 2, generator) for choice in chosen]


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_threads_are_those_asked_for_and_torch_has_its_own_again(runtime: str) -> None:
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime")
    before = torch.get_num_threads()
    with open_runtime(runtime, _CPU, before + 1) as opened:  # type: ignore[arg-type]
        assert torch.get_num_threads() == before + 1
        assert opened.versions()["torch"] == str(torch.__version__)
        assert runtime in opened.versions()
    assert torch.get_num_threads() == before


def test_torch_runs_each_block_on_its_own_input() -> None:
    group = _some_blocks("batch", 4)
    expected = [member.module(member.example) for member in group]
    with open_runtime("torch", _CPU, 1) as runtime:
        for call, output in zip(runtime.calls(group), expected, strict=True):
            found = call()
            assert isinstance(found, torch.Tensor)
            assert torch.allclose(found, output, rtol=1e-4, atol=1e-5)
            assert not found.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_onnxruntime_runs_each_block_of_a_group_as_a_model_of_its_own(norm: str) -> None:
    pytest.importorskip("onnxruntime")
    group = [*_some_blocks(norm, 3), Measurable(nn.Identity(), torch.randn(1, 8, 8, 8))]
    with open_runtime("onnxruntime", _CPU, 1) as runtime:
        results = [call() for call in runtime.calls(group)]
    for result, member in zip(results, group, strict=True):
        expected = member.module(member.example).numpy()
        assert np.allclose(result.numpy(), expected, rtol=1e-3, atol=1e-4)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_model_of_a_group_has_its_own_operators_and_weights_alone() -> None:
    pytest.importorskip("onnxruntime")
    group = _some_blocks("batch", 2)
    for model, member in zip(export_each(group), group, strict=True):
        convolutions = sum(isinstance(layer, nn.Conv2d) for layer in member.module.modules())
        assert sum(node.op_type == "Conv" for node in model.graph.node) == convolutions
        assert not any("Norm" in node.op_type for node in model.graph.node)
        # Biases that are equal, as all of these are, are stored once.
        layers = [layer for layer in member.module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        weights = sum(layer.weight.numel() for layer in layers)
        stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
        assert weights <= stored <= sum(parameter.numel() for parameter in member.module.parameters()) + 50


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"device 'cuda' is not on this machine; it has: cpu"):
        check_runtime("torch", "cuda")


def test_an_onnxruntime_without_gpus_is_refused_with_the_line_that_installs_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    package = types.ModuleType("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", package)
    monkeypatch.setattr(package, "get_available_providers", lambda: ["CPUExecutionProvider"], raising=False)
    with pytest.raises(UserError, match="pip install onnxruntime-gpu"):
        check_runtime("onnxruntime", "cuda")
    assert check_runtime("torch", "cuda") == torch.device("cuda:0")
    assert check_runtime("onnxruntime", "cpu") == _CPU
