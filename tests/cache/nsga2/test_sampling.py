import numpy as np
import pytest
from helpers.runs.federation import MICRO
from helpers.runs.simulation import largest, smallest

from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.nsga2.sampling import draw_within, ladder
from fedpareto.fitness.score import score
from fedpareto.supernet.common.errors import BudgetError
from fedpareto.supernet.genes import decode, encode, gene_layout
from fedpareto.supernet.space_file import load_space


@pytest.mark.parametrize("name", ["mobilenet-tiny", "mobilenet-cifar"])
def test_a_ladder_covers_the_whole_range_of_macs(name: str) -> None:
    space = load_space(name)
    macs = score(space, ladder(space, 500, np.random.default_rng(0))).macs
    shares = np.histogram(macs, bins=10, range=(macs.min(), macs.max()))[0] / 500
    assert shares.min() > 0.01


def test_a_ladder_begins_with_the_smallest_network_and_ends_with_the_largest() -> None:
    genes = ladder(MICRO, 40, np.random.default_rng(0))
    assert genes.shape == (40, len(gene_layout(MICRO).sizes))
    assert decode(MICRO, genes[0]) == smallest()
    assert decode(MICRO, genes[-1]) == largest()


def test_every_gene_of_a_ladder_takes_every_value() -> None:
    genes = ladder(MICRO, 200, np.random.default_rng(0))
    for column, size in zip(genes.T, gene_layout(MICRO).sizes, strict=True):
        assert set(column.tolist()) == set(range(int(size)))


@pytest.mark.parametrize("count", [1, 2, 5, 10, 11])
def test_a_short_ladder_has_as_many_rungs_as_asked_for(count: int) -> None:
    assert len(ladder(MICRO, count, np.random.default_rng(0))) == count


@pytest.mark.parametrize(("least", "most"), [(40_000, 60_000), (90_000, 100_000), (140_000, 150_000)])
def test_a_draw_lies_within_its_limits(least: int, most: int) -> None:
    generator = np.random.default_rng(0)
    for _ in range(5):
        architecture = draw_within(MICRO, Limits(macs=most, min_macs=least), generator)
        (macs,) = score(MICRO, encode(MICRO, architecture)[None]).macs
        assert least <= macs <= most


def test_a_draw_without_limits_is_any_network() -> None:
    generator = np.random.default_rng(0)
    assert len({draw_within(MICRO, Limits(), generator) for _ in range(30)}) > 10


def test_the_draw_is_the_generators() -> None:
    limits = Limits(macs=100_000, min_macs=60_000)
    first, again, other = (draw_within(MICRO, limits, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_limits_no_network_meets_are_an_error_that_names_space_and_limits() -> None:
    with pytest.raises(BudgetError, match=r"no random network of micro lies within .*widen the range of MACs"):
        draw_within(MICRO, Limits(macs=40_420, min_macs=40_417), np.random.default_rng(0))
