import itertools

import numpy as np
import pytest
from helpers.networks.strategies import preset, runs, tiny_space
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.fitness.score import score
from fedpareto.search.ranking.measuring.bands import Band, draw_subnets, evenly, macs_bands
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.genes import encode_all


def test_bands_are_the_middles_of_parts_of_equal_ratio() -> None:
    bands = macs_bands(10e6, 160e6, 2, 0.1)
    assert [band.least for band in bands] == pytest.approx([20e6 * 0.95, 80e6 * 0.95])
    assert [band.most for band in bands] == pytest.approx([20e6 * 1.05, 80e6 * 1.05])


def test_a_band_is_no_wider_than_its_part() -> None:
    bands = macs_bands(10.0, 12.0, 4, 0.5)
    assert bands[0].least == pytest.approx(10.0)
    assert bands[-1].most == pytest.approx(12.0)
    assert all(one.most == pytest.approx(next_one.least) for one, next_one in itertools.pairwise(bands))


def test_a_band_in_words_has_three_digits() -> None:
    assert Band(24_531_072.0, 26_991_040.0).words() == "24.5M–27M MACs"


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.data())
@runs(80)
def test_even_steps_take_each_value_once_and_both_ends(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    array = np.array(values)
    index = evenly(array, count)
    assert len(set(index.tolist())) == count
    assert array[index[0]] == array.min()
    if count > 1:
        assert array[index].max() == array.max()


def test_even_steps_are_nearest_to_evenly_spread_values() -> None:
    values = np.array([0.0, 0.9, 1.0, 4.9, 5.2, 10.0])
    assert evenly(values, 3).tolist() == [0, 3, 5]


def test_subnets_are_spread_over_the_fitness_of_each_band() -> None:
    space = preset("mobilenet-cifar")
    bands = [Band(24e6, 27e6), Band(55e6, 60e6)]
    subnets = draw_subnets(space, space.fitness, bands, 31, 0)
    scores = score(space, encode_all(space, [subnet.architecture for subnet in subnets]))
    assert scores.feasible.all()
    numbers = np.array([subnet.band for subnet in subnets])
    assert np.bincount(numbers).tolist() == [16, 15]
    # Random draws have nearly all their fitness in the middle third.
    for number, band in enumerate(bands):
        here = numbers == number
        assert (scores.macs[here] >= band.least).all()
        assert (scores.macs[here] <= band.most).all()
        fitness = np.sort(scores.fitness[here])
        steps = np.diff(fitness) / np.ptp(fitness)
        assert steps.max() < 2 / len(steps)
    assert len(set(numbers[:8].tolist())) == 2


def test_a_draw_is_that_of_its_seed() -> None:
    space = tiny_space()
    bands = macs_bands(1e6, 4e6, 2, 0.2)
    first, again, other = (draw_subnets(space, space.fitness, bands, 12, seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert len({subnet.architecture for subnet in first}) == 12


def test_a_band_without_networks_is_named() -> None:
    space = tiny_space()
    with pytest.raises(UserError, match=r"^0 random networks of mobilenet-tiny .* 1M–1M MACs .*, not 4; .*--flops-min"):
        draw_subnets(space, space.fitness, [Band(999_999.5, 999_999.9)], 4, 0)
