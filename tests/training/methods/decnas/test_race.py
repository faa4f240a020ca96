"""The race of decnas' candidates."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import get_args

import numpy as np
from helpers.networks.strategies import runs
from helpers.runs.simulation import micro_entries
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpareto.training.config.methods import DecNasConfig
from fedpareto.training.methods.decnas.candidates import Candidate
from fedpareto.training.methods.decnas.race import Racer, Status, after_round, winner

_CURRENT = micro_entries()[-1].macs + 1000


def _racers(count: int) -> list[Racer]:
    entries = itertools.cycle(micro_entries())
    return [Racer(Candidate(stage, "width", next(entries)), (stage,)) for stage in range(count)]


def _raced(curves: NDArray[np.float64], settings: DecNasConfig) -> list[Racer]:
    """Return the racers at the end; ``curves`` has a row a racer and a column a round."""
    racers = _racers(len(curves))
    for number in range(settings.most_rounds):
        if all(racer.status != "training" for racer in racers):
            break
        racers = after_round(racers, {f"stage{row}-width": curve[number] for row, curve in enumerate(curves)}, settings)
    return racers


def _settings(**changes: object) -> DecNasConfig:
    return DecNasConfig(**{"drop_after": 2, "least_rounds": 2, "most_rounds": 6, "gain": 0.01, **changes})  # type: ignore[arg-type]


def _statuses(racers: Sequence[Racer]) -> list[Status]:
    return [racer.status for racer in racers]


@st.composite
def _races(draw: st.DrawFn) -> tuple[NDArray[np.float64], DecNasConfig]:
    """Rising curves that never cross: row by row each is above the last, and stays so."""
    least = draw(st.integers(1, 6))
    settings = DecNasConfig(
        drop_after=draw(st.integers(1, 8)),
        least_rounds=least,
        most_rounds=least + draw(st.integers(0, 6)),
        gain=draw(st.sampled_from((0.0, 0.005, 0.05))),
    )
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    rows = draw(st.integers(1, 12))
    # Gains that fall over the rounds, larger the better the candidate.
    gains = np.sort(generator.random((rows, settings.most_rounds)), axis=0) / 4 ** np.arange(settings.most_rounds)
    curves = np.sort(generator.random(rows))[:, None] / 10 + 0.2 * gains.cumsum(axis=1)
    return curves, settings


@given(race=_races())
@runs(300)
def test_without_noise_the_best_candidate_is_never_dropped(race: tuple[NDArray[np.float64], DecNasConfig]) -> None:
    curves, settings = race
    order = np.random.default_rng(0).permutation(len(curves))
    racers = _raced(curves[order], settings)
    best = int(np.argmax(curves[order][:, -1]))
    assert racers[best].status == "stopped"


@given(race=_races())
@runs(300)
def test_candidates_train_between_the_least_and_the_most_rounds(race: tuple[NDArray[np.float64], DecNasConfig]) -> None:
    curves, settings = race
    for racer in _raced(curves, settings):
        rounds = len(racer.accuracies)
        assert rounds <= settings.most_rounds
        if racer.status == "dropped":
            assert rounds >= settings.drop_after
            continue
        assert racer.status == "stopped"
        assert rounds >= settings.least_rounds
        # Who stopped early had gained little, and in no round before.
        gains = np.array(racer.accuracies)[2:] - np.array(racer.accuracies)[:-2]
        allowed = max(3, settings.least_rounds) - 3
        assert (gains[allowed:-1] >= settings.gain).all()
        assert rounds == settings.most_rounds or gains[-1] < settings.gain


def test_those_below_the_median_are_dropped_from_a_round_on_and_no_sooner() -> None:
    racers = _racers(4)
    accuracies = {"stage0-width": 0.4, "stage1-width": 0.1, "stage2-width": 0.3, "stage3-width": 0.2}
    racers = after_round(racers, accuracies, _settings())
    assert _statuses(racers) == ["training"] * 4
    racers = after_round(racers, {name: value + 0.1 for name, value in accuracies.items()}, _settings())
    assert _statuses(racers) == ["training", "dropped", "training", "dropped"]
    assert racers[1].accuracies == (0.1, 0.2)
    # The next round asks no more of those that are dropped, and the median is that of the others.
    racers = after_round(racers, {"stage0-width": 0.6, "stage2-width": 0.5}, _settings())
    assert _statuses(racers) == ["training", "dropped", "dropped", "dropped"]


def test_equal_candidates_and_a_single_one_are_not_dropped() -> None:
    racers = after_round(_racers(3), {f"stage{row}-width": 0.5 for row in range(3)}, _settings(drop_after=1))
    assert _statuses(racers) == ["training"] * 3
    assert _statuses(after_round(_racers(1), {"stage0-width": 0.0}, _settings(drop_after=1))) == ["training"]


def test_one_that_has_stopped_is_neither_dropped_nor_compared_with_those_that_have_trained_longer() -> None:
    settings = _settings(drop_after=1, gain=0.5)
    stopped, *training = _racers(3)
    for accuracy in (0.0, 0.9):
        resting = Racer(stopped.candidate, stopped.clients, (0.5, 0.5, accuracy), "stopped")
        raced = after_round([resting, *training], {"stage1-width": 0.4, "stage2-width": 0.6}, settings)
        assert _statuses(raced) == ["stopped", "dropped", "training"]
    assert after_round([resting], {}, settings) == [resting]


def test_a_candidate_stops_when_two_rounds_have_gained_it_too_little() -> None:
    def rounds(*accuracies: float, **changes: object) -> int:
        (racer,) = _raced(np.array([accuracies]), _settings(most_rounds=len(accuracies), **changes))
        return len(racer.accuracies)

    assert rounds(0.1, 0.2, 0.3, 0.305, 0.309, 0.9) == 5
    assert rounds(0.1, 0.1, 0.1, 0.9, 0.9, 0.9) == 3
    assert rounds(0.1, 0.1, 0.1, 0.1, 0.9, 0.9, least_rounds=4) == 4
    assert rounds(0.1, 0.2, 0.3, 0.4, 0.5, 0.6) == 6
    # Two rounds together may gain what one did not.
    assert rounds(0.1, 0.106, 0.112, 0.118, 0.118, 0.118) == 5


def _finished(*curves: Sequence[float], statuses: Sequence[Status] | None = None) -> list[Racer]:
    """Return racers of the micro cache's entries, smallest first, with these accuracies."""
    statuses = statuses or ["stopped"] * len(curves)
    return [
        dataclasses.replace(racer, accuracies=tuple(curve), status=status)
        for racer, curve, status in zip(_racers(len(curves)), curves, statuses, strict=True)
    ]


def _saved(racer: Racer) -> int:
    return _CURRENT - racer.candidate.entry.macs


def test_a_larger_gain_wins_even_if_a_smaller_one_saves_fewer_macs() -> None:
    # By gain for every MAC the network that hardly shrank would win.
    large, small = _finished((0.0,), (0.0,), (0.0,), (0.0,), (0.0,), (0.809,))[-1], _finished((0.82,))[0]
    assert (0.809 - 0.8) / _saved(large) > (0.82 - 0.8) / _saved(small)
    assert winner([large, small], 0.8, _CURRENT) is small


def test_of_losses_the_least_for_every_mac_saved_wins() -> None:
    (small, *_, large) = _racers(len(micro_entries()))
    even = 0.1 * _saved(large) / _saved(small)
    for shift, best in ((1e-6, "small"), (-1e-6, "large")):
        small, large = (
            dataclasses.replace(racer, accuracies=(accuracy,), status="stopped")
            for racer, accuracy in ((small, 0.7), (large, 0.8 - even - shift))
        )
        assert winner([small, large], 0.8, _CURRENT) is {"small": small, "large": large}[best]


_ACCURACIES = st.integers(0, 8).map(lambda eighths: eighths / 8)


@given(
    curves=st.lists(st.lists(_ACCURACIES, min_size=1, max_size=5), min_size=1, max_size=6),
    reference=_ACCURACIES,
    data=st.data(),
)
@runs(300)
def test_the_winner_is_found_by_the_accuracies_after_the_rounds_that_all_have(
    curves: list[list[float]], reference: float, data: st.DataObject
) -> None:
    statuses = data.draw(st.lists(st.sampled_from(get_args(Status)), min_size=len(curves), max_size=len(curves)))
    statuses[data.draw(st.integers(0, len(curves) - 1))] = "stopped"
    racers = _finished(*curves, statuses=statuses)
    best = winner(racers, reference, _CURRENT)
    left = [racer for racer in racers if racer.status != "dropped"]
    assert best in left
    rounds = min(len(racer.accuracies) for racer in left)
    gain = best.accuracies[rounds - 1] - reference
    for racer in left:
        other = racer.accuracies[rounds - 1] - reference
        if gain > 0:
            assert other < gain or (other == gain and _saved(racer) <= _saved(best))
        else:
            # Nobody has gained.
            assert other <= 0
            assert other / _saved(racer) <= gain / _saved(best)
    # Rounds that only some have had decide nothing.
    longer = [dataclasses.replace(racer, accuracies=racer.accuracies[:rounds] + (1.0,) * 3) for racer in left[1:]]
    shorter = dataclasses.replace(left[0], accuracies=left[0].accuracies[:rounds])
    assert winner([shorter, *longer], reference, _CURRENT).name == best.name


def test_of_equal_candidates_the_first_wins() -> None:
    (entry, *_), racers = micro_entries(), []
    for stage in (0, 1):
        racers.append(Racer(Candidate(stage, "width", entry), (stage,), (0.5,), "stopped"))
    assert winner(racers, 0.6, _CURRENT) is racers[0]
