import dataclasses

import numpy as np
import pytest
from helpers.networks.strategies import PRESETS, preset, runs, spaces_with_architectures, tiny_space
from hypothesis import given

from fedpareto.supernet.architecture import Architecture, Block, Stage
from fedpareto.supernet.genes import decode, random_genes
from fedpareto.supernet.networks.network import build_network
from fedpareto.supernet.slices import slices, supernet_architecture, tensor_shapes
from fedpareto.supernet.space import SearchSpace, StageSpec, StemSpec


def _check_slices(space: SearchSpace, architecture: Architecture) -> None:
    """Prefix on channels, centre crop on kernels, names and shapes of the network that is built."""
    full = tensor_shapes(space, supernet_architecture(space))
    owned = slices(space, architecture)
    assert set(owned) <= set(full)
    sliced = {}
    for name, index in owned.items():
        assert len(index) == len(full[name])
        for axis, part in enumerate(index):
            whole = full[name][axis]
            assert part.step is None
            assert 0 <= part.start < part.stop <= whole
            assert part.start == (whole - part.stop if axis >= 2 else 0)
        sliced[name] = tuple(part.stop - part.start for part in index)
    built = build_network(space, architecture, device="meta").named_parameters()
    assert sliced == {name: tuple(parameter.shape) for name, parameter in built}


@given(spaces_with_architectures())
@runs(50)
def test_slices_of_user_spaces_are_prefixes_and_centre_crops_of_the_supernet(
    drawn: tuple[SearchSpace, Architecture],
) -> None:
    _check_slices(*drawn)


@pytest.mark.parametrize("name", PRESETS)
def test_slices_of_presets_are_prefixes_and_centre_crops_of_the_supernet(name: str) -> None:
    space = preset(name)
    for genes in random_genes(space, 6, np.random.default_rng(7)):
        _check_slices(space, decode(space, genes))


@pytest.mark.parametrize("name", PRESETS)
def test_the_supernet_owns_all_of_its_tensors(name: str) -> None:
    space = preset(name)
    whole = supernet_architecture(space)
    for tensor, index in slices(space, whole).items():
        assert index == tuple(slice(0, size) for size in tensor_shapes(space, whole)[tensor])


def test_ratios_that_barely_widen_a_block_have_slices_too() -> None:
    space = dataclasses.replace(tiny_space(), expands=(1.1,))
    for genes in random_genes(space, 20, np.random.default_rng(0)):
        _check_slices(space, decode(space, genes))


def test_slices_of_a_network_worked_out_by_hand() -> None:
    space = SearchSpace(
        name="hand",
        family="mobilenet",
        stem=StemSpec(16, multipliers=(0.5, 1.0)),
        stages=(StageSpec(16, se=True),),
        resolutions=(8,),
        depths=(1, 2),
        kernels=(3, 7),
        expands=(2.0, 4.0),
        width_multipliers=(0.5, 1.0),
        classes=5,
    )
    architecture = Architecture("mobilenet", 8, 8, (Stage(8, (Block(2.0, 3),)),))
    eight, sixteen, one, crop = slice(0, 8), slice(0, 16), slice(0, 1), slice(2, 5)
    three, five = slice(0, 3), slice(0, 5)
    expected = {
        "stem.entry.conv.weight": (eight, three, three, three),
        "fixed.depthwise.conv.weight": (eight, one, three, three),
        "fixed.project.conv.weight": (eight, eight, one, one),
        "stages.0.0.expand.conv.weight": (sixteen, eight, one, one),
        "stages.0.0.depthwise.conv.weight": (sixteen, one, crop, crop),
        "stages.0.0.squeeze.conv.weight": (eight, sixteen, one, one),
        "stages.0.0.squeeze.conv.bias": (eight,),
        "stages.0.0.excite.conv.weight": (sixteen, eight, one, one),
        "stages.0.0.excite.conv.bias": (sixteen,),
        "stages.0.0.project.conv.weight": (eight, sixteen, one, one),
        "head.classifier.linear.weight": (five, eight),
        "head.classifier.linear.bias": (five,),
    }
    norms = {"stem.entry": eight, "fixed.depthwise": eight, "fixed.project": eight}
    norms |= {"stages.0.0.expand": sixteen, "stages.0.0.depthwise": sixteen, "stages.0.0.project": eight}
    for layer, channels in norms.items():
        expected[f"{layer}.norm.weight"] = expected[f"{layer}.norm.bias"] = (channels,)
    assert dict(slices(space, architecture)) == expected
    assert tensor_shapes(space, supernet_architecture(space))["stages.0.1.depthwise.conv.weight"] == (
        64,
        1,
        7,
        7,
    )


def test_slices_of_a_resnet_worked_out_by_hand() -> None:
    space = SearchSpace(
        name="hand",
        family="resnet",
        stem=StemSpec(16, multipliers=(0.5, 1.0)),
        stages=(StageSpec(32, stride=2),),
        resolutions=(8,),
        depths=(1, 2),
        expands=(0.5, 1.0),
        width_multipliers=(0.5, 1.0),
        classes=5,
    )
    architecture = Architecture("resnet", 8, 8, (Stage(16, (Block(0.5), Block(1.0))),))
    eight, sixteen, three, one, five = (slice(0, size) for size in (8, 16, 3, 1, 5))
    expected = {
        "stem.entry.conv.weight": (eight, three, three, three),
        "stages.0.0.conv1.conv.weight": (eight, eight, three, three),
        "stages.0.0.conv2.conv.weight": (sixteen, eight, three, three),
        "stages.0.0.shortcut.conv.weight": (sixteen, eight, one, one),
        "stages.0.1.conv1.conv.weight": (sixteen, sixteen, three, three),
        "stages.0.1.conv2.conv.weight": (sixteen, sixteen, three, three),
        "head.classifier.linear.weight": (five, sixteen),
        "head.classifier.linear.bias": (five,),
    }
    for name, (channels, *_) in list(expected.items())[:-2]:
        norm = name.replace("conv.weight", "norm")
        expected[f"{norm}.weight"] = expected[f"{norm}.bias"] = (channels,)
    assert dict(slices(space, architecture)) == expected
    whole = tensor_shapes(space, supernet_architecture(space))
    assert whole["stages.0.0.shortcut.conv.weight"] == (32, 16, 1, 1)
    assert whole["stages.0.1.conv1.conv.weight"] == (32, 32, 3, 3)


def test_tensors_of_equal_width_spaces_do_not_depend_on_the_norm() -> None:
    space = tiny_space()
    group = dataclasses.replace(space, norm="group")
    whole = supernet_architecture(space)
    assert tensor_shapes(space, whole) == tensor_shapes(group, supernet_architecture(group))
