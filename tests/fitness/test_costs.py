import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks.reference import macs_and_params
from helpers.networks.reference import peak_activation_bytes as slow_peak
from helpers.networks.strategies import PRESETS, architectures, preset, runs, spaces_with_architectures
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from fedpareto.fitness.costs import file_bytes, macs, parameters, peak_activation_bytes
from fedpareto.fitness.part_tables import choices_made, tabulate
from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture, Block, Stage
from fedpareto.supernet.genes import encode, gene_layout, largest_genes, random_genes
from fedpareto.supernet.layer_table import layer_table
from fedpareto.supernet.networks.network import build_network
from fedpareto.supernet.space import SearchSpace, StageSpec, StemSpec

_preset_architectures = st.sampled_from(PRESETS).flatmap(
    lambda name: st.tuples(st.just(preset(name)), architectures(preset(name)))
)

#: A network small enough to add up by hand: 8×8 images, 8 channels, one block of 16 with squeeze-excite.
_SPACE = SearchSpace(
    name="hand",
    family="mobilenet",
    stem=StemSpec(8),
    stages=(StageSpec(8, se=True),),
    resolutions=(8,),
    depths=(1,),
    kernels=(3,),
    expands=(2.0,),
    width_multipliers=(1.0,),
    classes=5,
)
_HAND = Architecture("mobilenet", 8, 8, (Stage(8, (Block(2.0, 3),)),))

#: Another: 9×9 images, 8 channels, a block of 8 and 16 channels that leaves 5×5, and one without a projection.
_RESNET_SPACE = SearchSpace(
    name="hand",
    family="resnet",
    stem=StemSpec(8),
    stages=(StageSpec(16, stride=2),),
    resolutions=(9,),
    depths=(2,),
    expands=(0.5,),
    width_multipliers=(1.0,),
    classes=5,
)
_RESNET_HAND = Architecture("resnet", 9, 8, (Stage(16, (Block(0.5), Block(0.5))),))


def _check_against_a_built_network(space: SearchSpace, architecture: Architecture) -> None:
    table = layer_table(space, encode(space, architecture))
    network = build_network(space, architecture, device="meta")
    side = architecture.resolution
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(2, space.in_channels, side, side, device="meta"))
    assert macs(table).tolist() == [counter.get_total_flops() / 4]
    assert parameters(table).tolist() == [sum(p.numel() for p in network.parameters())]


@pytest.mark.slow
@given(_preset_architectures)
@runs(15, shrink=False)
def test_costs_of_presets_are_those_of_the_built_network(drawn: tuple[SearchSpace, Architecture]) -> None:
    _check_against_a_built_network(*drawn)


@given(spaces_with_architectures())
@runs(30, shrink=False)
def test_costs_of_user_spaces_are_those_of_the_built_network(drawn: tuple[SearchSpace, Architecture]) -> None:
    _check_against_a_built_network(*drawn)


@given(_preset_architectures | spaces_with_architectures())
@runs(150, shrink=False)
def test_costs_are_those_of_the_slow_reference(drawn: tuple[SearchSpace, Architecture]) -> None:
    space, architecture = drawn
    scores = score(space, encode(space, architecture))
    assert (scores.macs[0], scores.params[0]) == macs_and_params(space, architecture)
    assert scores.activation_bytes[0] == slow_peak(space, architecture)


def test_costs_of_a_small_network_worked_out_by_hand() -> None:
    table = layer_table(_SPACE, encode(_SPACE, _HAND))
    fixed = 8 * 9 + 8 * 8
    block = 8 * 16 + 16 * 9 + 16 * 8
    squeeze_excite = 2 * 16 * 8
    norms = 2 * (8 + 8 + 8 + 16 + 16 + 8)
    assert macs(table).tolist() == [64 * (27 * 8 + fixed + block) + squeeze_excite + 5 * 8]
    assert parameters(table).tolist() == [27 * 8 + fixed + block + squeeze_excite + 8 + 16 + 5 * 8 + 5 + norms]


def test_peak_memory_of_a_small_network_worked_out_by_hand() -> None:
    # The worst moment scales the map: the block's input waits (8·64), the map (16·64) and the scaled map
    # live, and the gate's 8 inputs and 16 outputs.
    table = layer_table(_SPACE, encode(_SPACE, _HAND))
    expected = 4 * (8 * 64 + 2 * 16 * 64 + 8 + 16)
    assert peak_activation_bytes(table).tolist() == [expected]
    assert peak_activation_bytes(table, batch=3).tolist() == [3 * expected]


def test_costs_of_a_small_resnet_worked_out_by_hand() -> None:
    table = layer_table(_RESNET_SPACE, encode(_RESNET_SPACE, _RESNET_HAND))
    stem = 27 * 8
    first = 72 * 8 + 72 * 16 + 8 * 16
    second = 144 * 8 + 72 * 16
    norms = 2 * (8 + 8 + 16 + 16 + 8 + 16)
    assert macs(table).tolist() == [81 * stem + 25 * (first + second) + 16 * 5]
    assert parameters(table).tolist() == [stem + first + second + norms + 16 * 5 + 5]


def test_peak_memory_of_a_small_resnet_worked_out_by_hand() -> None:
    # The worst moment projects the shortcut: the block's input (8·81) is read, what the convolutions made
    # (16·25) waits, and the projection (16·25) is written.
    table = layer_table(_RESNET_SPACE, encode(_RESNET_SPACE, _RESNET_HAND))
    assert peak_activation_bytes(table).tolist() == [4 * (8 * 81 + 2 * 16 * 25)]


def test_peak_memory_of_an_unstrided_resnet_is_both_summands_and_their_sum() -> None:
    space = dataclasses.replace(_RESNET_SPACE, stages=(StageSpec(16),))
    table = layer_table(space, encode(space, _RESNET_HAND))
    assert peak_activation_bytes(table).tolist() == [4 * 3 * 16 * 81]


@pytest.mark.parametrize(
    ("name", "expected_macs", "expected_params"),
    [
        ("mobilenet-cifar", 35_293_824, 2_142_602),
        ("mobilenet-imagenet", 121_278_672, 3_410_792),
    ],
)
def test_the_least_network_of_full_width_has_the_figures_of_the_design(
    name: str, expected_macs: int, expected_params: int
) -> None:
    space = preset(name)
    layout = gene_layout(space)
    genes = largest_genes(space)
    for positions in (layout.depth, layout.kernel, layout.expand):
        genes[positions] = 0
    scores = score(space, genes)
    assert (scores.macs[0], scores.params[0]) == (expected_macs, expected_params)


@pytest.mark.parametrize(
    ("name", "expected_macs", "expected_params"),
    [
        ("mobilenet-cifar", 179_706_624, 6_396_570),
        ("mobilenet-imagenet", 566_170_656, 7_664_760),
    ],
)
def test_the_largest_network_has_the_figures_of_the_design(name: str, expected_macs: int, expected_params: int) -> None:
    scores = score(preset(name), largest_genes(preset(name)))
    assert (scores.macs[0], scores.params[0]) == (expected_macs, expected_params)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("name", ["mobilenet-tiny", "resnet-cifar"])
def test_file_bytes_are_a_sum_over_parts(name: str, norm: Any, precision: Any) -> None:
    space = dataclasses.replace(preset(name), norm=norm)
    genes = random_genes(space, 50, np.random.default_rng(0))
    expected = file_bytes(layer_table(space, genes), norm, precision)
    (tables, made) = tabulate(space, [lambda table: file_bytes(table, norm, precision)]), choices_made(space, genes.T)
    total = tables.stem[0][made.stem] + tables.head[0][made.head]
    for slots, chosen in zip(tables.blocks, made.blocks, strict=True):
        for (values,), choice in zip(slots, chosen, strict=True):
            total = total + np.append(values, 0)[choice]
    assert total.tolist() == expected.tolist()


def test_file_bytes_of_a_small_network_worked_out_by_hand() -> None:
    table = layer_table(_RESNET_SPACE, encode(_RESNET_SPACE, _RESNET_HAND))
    weights = 27 * 8 + 72 * 8 + 72 * 16 + 8 * 16 + 144 * 8 + 72 * 16 + 16 * 5
    channels = 8 + 8 + 16 + 16 + 8 + 16
    rest = 2000 + 5 * 24 + 350 * int(table.active.sum())
    assert file_bytes(table, "batch").tolist() == [4 * (weights + channels + 5) + rest]
    assert file_bytes(table, "batch", "fp16").tolist() == [2 * (weights + channels + 5) + rest]
    more = (620 - 350) * int(table.active.sum())
    assert file_bytes(table, "group").tolist() == [4 * (weights + 2 * channels + 5) + rest + more]
