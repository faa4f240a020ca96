import math

import numpy as np
import pytest
from helpers.networks.reference import convolutions
from helpers.networks.strategies import PRESETS, preset, runs, spaces_with_architectures, tiny_space, user_spaces
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.errors import ArchitectureError
from fedpareto.supernet.genes import decode, encode, random_genes
from fedpareto.supernet.layer_table import WEIGHTED, architecture_rows, layer_table
from fedpareto.supernet.space import SearchSpace


@given(spaces_with_architectures())
@runs(80)
def test_the_weighted_rows_are_the_layers_of_the_reference(drawn: tuple[SearchSpace, Architecture]) -> None:
    space, architecture = drawn
    rows = [row for row in architecture_rows(space, architecture) if row.layer.kind in WEIGHTED]
    expected = list(convolutions(space, architecture))
    assert [(row.c_in, row.c_out, row.kernel, row.groups) for row in rows] == [
        (conv.c_in, conv.c_out, conv.kernel, conv.groups) for conv in expected
    ]
    assert [(row.layer.norm, row.layer.bias) for row in rows] == [(conv.norm, conv.bias) for conv in expected]


@given(user_spaces())
@runs(30)
def test_columns_of_many_architectures_are_those_of_each_alone(space: SearchSpace) -> None:
    genes = random_genes(space, 5, np.random.default_rng(0))
    together = layer_table(space, genes)
    for index, vector in enumerate(genes):
        alone = layer_table(space, vector)
        assert alone.layers == together.layers
        for name in ("c_in", "c_out", "kernel", "groups", "h_in", "h_out", "held", "active", "weights"):
            assert np.array_equal(getattr(alone, name)[:, 0], getattr(together, name)[:, index]), name


@given(user_spaces() | st.sampled_from(PRESETS).map(preset))
@runs(40)
def test_sides_are_halved_and_rounded_up_by_every_stride(space: SearchSpace) -> None:
    strides = [space.stem.stride, *(spec.stride for spec in space.stages)]
    for genes in random_genes(space, 5, np.random.default_rng(0)):
        table, side = layer_table(space, genes), decode(space, genes).resolution
        for stage, stride in enumerate(strides):
            side = math.ceil(side / stride)
            last = np.flatnonzero((table.stage == stage) & table.active[:, 0])[-1]
            assert table.h_out[last, 0] == side


def test_names_are_unique_and_stages_are_numbered_from_the_stem_to_the_head() -> None:
    space = tiny_space()
    table = layer_table(space, random_genes(space, 1, np.random.default_rng(0)))
    names = [layer.name for layer in table.layers]
    assert len(set(names)) == len(names)
    assert names[0] == "stem.entry"
    assert names[-1] == "head.classifier"
    numbers = {
        layer.name.split(".")[1] if layer.name.startswith("stages") else layer.block: stage
        for layer, stage in zip(table.layers, table.stage.tolist(), strict=True)
    }
    assert numbers == {"stem": 0, "fixed": 0, "0": 1, "1": 2, "2": 3, "head": 4}


@given(spaces_with_architectures())
@runs(60)
def test_a_block_skips_when_its_input_has_the_shape_of_its_output_and_every_resnet_block_does(
    drawn: tuple[SearchSpace, Architecture],
) -> None:
    space, architecture = drawn
    skips = {row.layer.block for row in architecture_rows(space, architecture) if row.layer.kind == "add"}
    resnet = space.family == "resnet"
    expected, before = set() if resnet else {"fixed"}, architecture.stem_width
    for s, (spec, stage) in enumerate(zip(space.stages, architecture.stages, strict=True)):
        for b in range(len(stage.blocks)):
            if resnet or (before == stage.width and (b > 0 or spec.stride == 1)):
                expected.add(f"stages.{s}.{b}")
            before = stage.width
    assert skips == expected


@given(spaces_with_architectures())
@runs(60)
def test_the_first_block_of_every_resnet_stage_projects_its_shortcut_and_no_other_block(
    drawn: tuple[SearchSpace, Architecture],
) -> None:
    space, architecture = drawn
    projected = [row.layer.name for row in architecture_rows(space, architecture) if row.layer.kind == "shortcut"]
    stages = len(space.stages) if space.family == "resnet" else 0
    assert projected == [f"stages.{s}.0.shortcut" for s in range(stages)]


@pytest.mark.slow
@given(spaces_with_architectures())
@runs(60)
def test_squeeze_excite_strides_and_activations_are_those_of_the_stage(
    drawn: tuple[SearchSpace, Architecture],
) -> None:
    space, architecture = drawn
    for row in architecture_rows(space, architecture):
        path = row.layer.name.split(".")
        if path[0] != "stages":
            continue
        spec, kind = space.stages[int(path[1])], path[3]
        assert spec.se or kind not in ("squeeze", "excite")
        strided = kind in ("depthwise", "conv1", "shortcut") and path[2] == "0"
        assert row.layer.stride == (spec.stride if strided else 1)
        activated = ["conv1", "add"] if space.family == "resnet" else ["expand", "depthwise"]
        if spec.branch_activation:
            activated.append("conv2")
        expected = dict.fromkeys(activated, spec.activation) | {"squeeze": "relu"}
        assert row.layer.activation == expected.get(kind)


def test_an_architecture_of_another_space_is_refused() -> None:
    cifar = preset("mobilenet-cifar")
    architecture = decode(cifar, random_genes(cifar, 1, np.random.default_rng(0))[0])
    with pytest.raises(ArchitectureError, match="not in mobilenet-tiny"):
        list(architecture_rows(tiny_space(), architecture))


def test_rows_of_an_architecture_are_the_active_rows_of_its_table() -> None:
    space = tiny_space()
    architecture = decode(space, random_genes(space, 1, np.random.default_rng(4))[0])
    table = layer_table(space, encode(space, architecture))
    rows = list(architecture_rows(space, architecture))
    assert [row.layer for row in rows] == [
        layer for layer, active in zip(table.layers, table.active[:, 0], strict=True) if active
    ]
