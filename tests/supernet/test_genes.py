import dataclasses
import itertools

import numpy as np
import pytest
from helpers.networks.spaces import SMALL_RESNET
from helpers.networks.strategies import (
    PRESETS,
    gene_vectors,
    narrow_resnet,
    preset,
    runs,
    spaces_with_genes,
    tiny_space,
    user_spaces,
)
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture, Block, Stage
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import ArchitectureError
from fedpareto.supernet.genes import (
    as_genes,
    canonical,
    choices,
    decode,
    encode,
    encode_all,
    gene_layout,
    largest_genes,
    random_genes,
    smallest_genes,
)
from fedpareto.supernet.layer_table import architecture_rows
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.supernet.space import SearchSpace, StageSpec, StemSpec

_any_space = st.sampled_from(PRESETS).map(preset) | user_spaces()

#: Every network of this space can be listed, and many of its choices collide: 8·1.25, 8·1.5 and 8·2 are
#: all 16 channels, 0.3·16, 0.5·16 are both 8.
COLLIDING = SearchSpace(
    name="colliding",
    family="mobilenet",
    stem=StemSpec(8),
    stages=(StageSpec(16), StageSpec(8, stride=2, se=True)),
    resolutions=(8,),
    depths=(1, 2),
    kernels=(3,),
    expands=(1.25, 1.5, 2.0),
    width_multipliers=(0.3, 0.5, 1.0),
)


def _network(space: SearchSpace, architecture: Architecture) -> tuple[object, ...]:
    """What makes two networks the same: tensors, strides and layers in order, and the image side."""
    rows = tuple(architecture_rows(space, architecture))
    return architecture.resolution, tuple(tensor_shapes(space, architecture).items()), rows


@given(spaces_with_genes())
@runs(80)
def test_decode_and_encode_are_inverse_on_canonical_genes(drawn: tuple[SearchSpace, IntArray]) -> None:
    space, genes = drawn
    stands_for_it = canonical(space, genes)[0]
    architecture = decode(space, genes)
    assert encode(space, architecture).tolist() == stands_for_it.tolist()
    assert decode(space, stands_for_it) == architecture


@pytest.mark.parametrize("name", PRESETS)
def test_decode_and_encode_are_inverse_in_every_preset(name: str) -> None:
    space = preset(name)
    genes = canonical(space, random_genes(space, 50, np.random.default_rng(3)))
    assert np.array_equal(encode_all(space, [decode(space, vector) for vector in genes]), genes)


@given(_any_space, st.integers(0, 2**32 - 1))
@runs(40)
def test_canonical_is_idempotent_and_keeps_the_network(space: SearchSpace, seed: int) -> None:
    genes = random_genes(space, 20, np.random.default_rng(seed))
    once = canonical(space, genes)
    assert np.array_equal(canonical(space, once), once)
    for before, after in zip(score(space, genes), score(space, once), strict=True):
        assert np.array_equal(before, after)


@given(_any_space, st.integers(0, 2**32 - 1))
@runs(40)
def test_every_gene_vector_has_an_architecture_of_its_space(space: SearchSpace, seed: int) -> None:
    for genes in random_genes(space, 10, np.random.default_rng(seed)):
        architecture = decode(space, genes)
        encode(space, architecture)
        chosen = choices(space, genes)
        assert [stage.width for stage in architecture.stages] == chosen.width[:, 0].tolist()
        assert [len(stage.blocks) for stage in architecture.stages] == chosen.depth[:, 0].tolist()
        assert architecture.resolution == chosen.resolution[0]
        assert architecture.stem_width == chosen.stem[0]


def test_equal_networks_are_equal_architectures_and_no_others() -> None:
    sizes = gene_layout(COLLIDING).sizes
    vectors = np.array(list(itertools.product(*(range(size) for size in sizes))))
    found: dict[Architecture, object] = {}
    for genes in vectors:
        architecture = decode(COLLIDING, genes)
        network = _network(COLLIDING, architecture)
        assert found.setdefault(architecture, network) == network
    assert len(set(found.values())) == len(found)
    assert len(found) == len(np.unique(canonical(COLLIDING, vectors), axis=0))


@given(spaces_with_genes())
@runs(50)
def test_equal_networks_of_user_spaces_are_equal_architectures(drawn: tuple[SearchSpace, IntArray]) -> None:
    space, genes = drawn
    for position in range(len(genes)):
        near = genes.copy()
        near[position] = (near[position] + 1) % gene_layout(space).sizes[position]
        one, other = decode(space, genes), decode(space, near)
        assert (one == other) == (_network(space, one) == _network(space, other))


def test_colliding_expand_ratios_decode_to_the_smallest() -> None:
    layout = gene_layout(COLLIDING)
    genes = smallest_genes(COLLIDING)
    for index in range(3):
        genes[layout.expand[0, 0]] = index
        assert decode(COLLIDING, genes).stages[0].blocks == (Block(1.25),)
    given = Architecture("mobilenet", 8, 8, (Stage(8, (Block(2, 3),)), Stage(8, (Block(1.5, 3),))))
    assert decode(COLLIDING, encode(COLLIDING, given)).stages[1].blocks == (Block(1.25),)


def test_colliding_multipliers_are_one_choice_with_the_largest_of_them() -> None:
    assert COLLIDING.width_choices == ({8: 0.5, 16: 1.0}, {8: 1.0})
    assert gene_layout(COLLIDING).sizes[gene_layout(COLLIDING).width].tolist() == [2, 1]


@given(spaces_with_genes())
@runs(50)
def test_genes_of_inactive_blocks_mean_nothing(drawn: tuple[SearchSpace, IntArray]) -> None:
    space, genes = drawn
    layout = gene_layout(space)
    inactive = ~choices(space, genes).active[:, :, 0]
    other = genes.copy()
    for positions in (layout.kernel[inactive], layout.expand[inactive]):
        other[positions] = layout.sizes[positions] - 1 - other[positions]
    assert decode(space, other) == decode(space, genes)
    assert np.array_equal(canonical(space, other), canonical(space, genes))


@given(_any_space, st.integers(0, 2**32 - 1))
@runs(40)
def test_no_network_is_smaller_than_the_smallest_or_larger_than_the_largest(space: SearchSpace, seed: int) -> None:
    scores = score(space, random_genes(space, 100, np.random.default_rng(seed)))
    least, most = score(space, smallest_genes(space)), score(space, largest_genes(space))
    assert least.macs[0] <= scores.macs.min() <= scores.macs.max() <= most.macs[0]
    assert least.params[0] <= scores.params.min() <= scores.params.max() <= most.params[0]


def test_the_smallest_network_is_the_smallest_when_ratios_barely_widen_a_block() -> None:
    stem, stage = StemSpec(16), StageSpec(24)
    space = dataclasses.replace(
        COLLIDING, stem=stem, stages=(stage,), depths=(3,), expands=(1.1, 2.0), width_multipliers=(0.5, 1.0)
    )
    scores = score(space, random_genes(space, 200, np.random.default_rng(0)))
    assert score(space, smallest_genes(space)).macs[0] <= scores.macs.min()


def test_random_genes_come_from_the_generator_alone_and_reach_every_choice() -> None:
    space = tiny_space()
    genes = random_genes(space, 500, np.random.default_rng(1))
    assert np.array_equal(genes, random_genes(space, 500, np.random.default_rng(1)))
    assert not np.array_equal(genes, random_genes(space, 500, np.random.default_rng(2)))
    assert np.array_equal(genes.max(axis=0), gene_layout(space).sizes - 1)
    assert genes.min(axis=0).tolist() == [0] * genes.shape[1]


@given(gene_vectors(tiny_space()), st.data())
@runs(60)
def test_genes_out_of_range_are_refused(genes: IntArray, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(genes) - 1))
    for value in (-1, int(gene_layout(tiny_space()).sizes[position])):
        genes[position] = value
        with pytest.raises(ArchitectureError, match="out of range"):
            as_genes(tiny_space(), genes)


def test_blocks_that_share_their_ratio_have_one_gene_of_it() -> None:
    space = dataclasses.replace(narrow_resnet(), expands_per="stage")
    layout = gene_layout(space)
    assert (layout.expand == layout.expand[:, :1]).all()
    per_stage = 2 + space.max_depth + 1
    assert len(layout.sizes) == 2 + per_stage * len(space.stages)
    positions = [layout.resolution, layout.stem, *layout.width, *layout.depth, *layout.kernel.ravel()]
    assert sorted({*positions, *layout.expand[:, 0]}) == list(range(len(layout.sizes)))
    for genes in random_genes(space, 50, np.random.default_rng(0)):
        for stage in decode(space, genes).stages:
            assert len({block.expand for block in stage.blocks}) == 1


def test_blocks_of_different_ratios_are_outside_a_space_where_they_share_one() -> None:
    free = SMALL_RESNET
    space = dataclasses.replace(free, expands_per="stage")
    (stage, *rest) = decode(free, largest_genes(free)).stages
    blocks = (*stage.blocks[:-1], Block(free.expands[0]))
    mixed = dataclasses.replace(decode(free, largest_genes(free)), stages=(Stage(stage.width, blocks), *rest))
    assert encode(free, mixed) is not None
    with pytest.raises(ArchitectureError, match=r"ratios of stages\[0\]\.blocks are .*all blocks of a stage share one"):
        encode(space, mixed)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 2, 23)])
def test_genes_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArchitectureError, match=r"columns, found shape"):
        as_genes(tiny_space(), np.zeros(shape, dtype=np.int64))


def _outside(**changes: object) -> Architecture:
    stages = decode(tiny_space(), smallest_genes(tiny_space())).stages
    fields = {"family": "mobilenet", "resolution": 8, "stem_width": 16, "stages": stages, **changes}
    return Architecture(**fields)  # type: ignore[arg-type]


_BLOCK = (Block(2, 3),)
_GOOD = (Stage(16, _BLOCK), Stage(24, _BLOCK), Stage(40, _BLOCK))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 32}, "resolution is 32; allowed: 8, 12, 16"),
        ({"stem_width": 8}, "stem_width is 8; allowed: 16"),
        ({"stages": _GOOD[:2]}, "the number of stages is 2; allowed: 3"),
        ({"stages": (Stage(48, _BLOCK), *_GOOD[1:])}, r"stages\[0\]\.width is 48; allowed: 8, 16"),
        (
            {"stages": (*_GOOD[:2], Stage(40, _BLOCK * 4))},
            r"blocks of stages\[2\] is 4; allowed: 1, 2, 3",
        ),
        (
            {"stages": (*_GOOD[:1], Stage(24, (Block(2, 7),)), _GOOD[2])},
            r"stages\[1\]\.blocks\[0\]\.kernel is 7; allowed: 3, 5",
        ),
        (
            {"stages": (*_GOOD[:1], Stage(24, (Block(6, 3),)), _GOOD[2])},
            r"stages\[1\]\.blocks\[0\]\.expand is 6; allowed: 2",
        ),
    ],
)
def test_an_architecture_outside_the_space_names_the_field_and_what_is_allowed(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ArchitectureError, match=message):
        encode(tiny_space(), _outside(**changes))


def test_an_architecture_of_another_family_is_outside_the_space() -> None:
    with pytest.raises(ArchitectureError, match="family is resnet; allowed: mobilenet"):
        encode(tiny_space(), _outside(family="resnet"))


def test_a_resnet_block_has_the_kernel_of_its_family() -> None:
    space = preset("resnet-cifar")
    good = decode(space, smallest_genes(space))
    stages = (Stage(good.stages[0].width, (Block(0.1, kernel=5),)), *good.stages[1:])
    with pytest.raises(ArchitectureError, match=r"stages\[0\]\.blocks\[0\]\.kernel is 5; allowed: 3"):
        encode(space, dataclasses.replace(good, stages=stages))


def test_colliding_ratios_of_a_resnet_block_depend_on_its_output() -> None:
    # 0.1 and 0.14 both make 8 channels of 48 and 16 of 104, but 24 and 32 of 208.
    space = preset("resnet-cifar")
    stages = tuple(Stage(width, (Block(0.14),)) for width in (48, 208, 104, 208))
    decoded = decode(space, encode(space, Architecture("resnet", 32, 64, stages)))
    assert [stage.blocks[0].expand for stage in decoded.stages] == [0.1, 0.14, 0.1, 0.14]


def test_no_architectures_are_no_genes() -> None:
    assert encode_all(tiny_space(), []).shape == (0, len(gene_layout(tiny_space()).sizes))
