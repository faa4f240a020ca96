import numpy as np
import pytest
from helpers.networks.strategies import tiny_space
from helpers.runs.rankings import planted

from fedpareto.fitness.score import score
from fedpareto.search.ranking.measuring.accuracies import Reading
from fedpareto.search.ranking.measuring.bands import Band
from fedpareto.search.ranking.measuring.measured_sample import FIGURES, bands_of, sample_of
from fedpareto.supernet.common.errors import ArchitectureError, UserError
from fedpareto.supernet.fitness_settings import FitnessSettings
from fedpareto.supernet.genes import decode, largest_genes, random_genes
from fedpareto.supernet.space_file import load_space


def test_bands_hold_all_networks_and_are_no_wider_than_asked() -> None:
    macs = np.array([100, 24_500, 27_000, 24_000, 27_064, 60_000])
    bands = bands_of(macs, 0.12)
    assert bands == [Band(100, 100), Band(24_000, 27_000), Band(27_064, 27_064), Band(60_000, 60_000)]
    assert all((band.most - band.least) / ((band.most + band.least) / 2) <= 0.12 for band in bands)


def test_a_sample_knows_the_band_of_each_network() -> None:
    space = tiny_space()
    genes = random_genes(space, 60, np.random.default_rng(0))
    sample = sample_of(space, [decode(space, each) for each in genes], [Reading(0.5)] * 60, width=0.5)
    macs = score(space, genes).macs
    for number, band in enumerate(sample.bands):
        assert ((sample.band == number) == ((macs >= band.least) & (macs <= band.most))).all()
    assert sample.band.min() == 0


def test_figures_are_those_of_the_weights() -> None:
    sample = planted(tiny_space(), count=20)
    weights = FitnessSettings(block_penalty=100.0)
    figures = sample.figures(weights)
    assert tuple(figures) == FIGURES
    scores = score(sample.space, sample.genes, weights)
    for name, column in figures.items():
        assert column.tolist() == getattr(scores, name).astype(float).tolist()


def test_some_of_a_sample_stay_in_their_bands() -> None:
    sample = planted(tiny_space(), count=20)
    some = sample.take(np.array([3, 19]))
    assert len(some) == 2
    assert some.bands == sample.bands
    assert some.band.tolist() == [0, 3]
    assert some.accuracy.tolist() == sample.accuracy[[3, 19]].tolist()


def test_bands_of_too_few_networks_are_refused() -> None:
    space = tiny_space()
    genes = random_genes(space, 3, np.random.default_rng(0))
    with pytest.raises(UserError, match="no band of MACs holds 4 of 3 networks"):
        sample_of(space, [decode(space, each) for each in genes], [Reading(0.5)] * 3, width=0.9)


def test_an_architecture_of_another_space_is_refused() -> None:
    cifar = load_space("mobilenet-cifar")
    with pytest.raises(ArchitectureError, match="not in mobilenet-tiny"):
        sample_of(tiny_space(), [decode(cifar, largest_genes(cifar))], [Reading(0.5)], width=0.1)


def test_halves_are_known_where_they_are_of_every_network() -> None:
    space = tiny_space()
    architectures = [decode(space, each) for each in random_genes(space, 4, np.random.default_rng(0))]
    readings = [Reading(0.5, (0.5 - share, 0.5 + share)) for share in (0.0, 0.1, 0.2, 0.3)]
    sample = sample_of(space, architectures, readings, [Band(0, 1e9)])
    assert sample.halves is not None
    assert sample.halves.tolist() == [[0.5, 0.4, 0.3, 0.2], [0.5, 0.6, 0.7, 0.8]]
    some = sample.take(np.array([2, 0])).halves
    assert some is not None
    assert some.tolist() == [[0.3, 0.5], [0.7, 0.5]]
    assert sample_of(space, architectures, [*readings[:3], Reading(0.5)], [Band(0, 1e9)]).halves is None
