"""The race of decnas' candidates."""

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from simulation import micro_entries
from strategies import runs

from training.methods.decnas.candidates import Candidate
from training.methods.decnas.race import Racer, Status, after_round, winner
from training.methods.settings import DecNasConfig

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


def test_one_that_has_stopped_is_not_dropped_when_others_pass_it_later_and_counts_in_the_median() -> None:
    settings = _settings(drop_after=1, gain=0.5)
    stopped, training = _racers(2)
    stopped = Racer(stopped.candidate, stopped.clients, (0.5, 0.5, 0.5), "stopped")
    ahead = after_round([stopped, training], {"stage1-width": 0.6}, settings)
    assert _statuses(ahead) == ["stopped", "training"]
    behind = after_round([stopped, training], {"stage1-width": 0.4}, settings)
    assert _statuses(behind) == ["stopped", "dropped"]


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


def test_the_winner_has_lost_the_least_accuracy_for_every_mac_saved() -> None:
    small, large = micro_entries()[0], micro_entries()[-1]

    def raced(entry_accuracy: float, other: float, status: Status = "stopped") -> str:
        racers = [
            Racer(Candidate(0, "width", small), (0,), (0.0, entry_accuracy), "stopped"),
            Racer(Candidate(1, "depth", large), (1,), (0.9, other), status),
        ]
        return winner(racers, 0.8, _CURRENT).name

    saved_small, saved_large = _CURRENT - small.macs, _CURRENT - large.macs
    even = 0.8 - 0.1 * saved_large / saved_small
    # The small network may lose more, as it saves more; exactly so much more.
    assert raced(0.7, even + 1e-6) == "stage1-depth"
    assert raced(0.7, even - 1e-6) == "stage0-width"
    assert raced(0.0, 0.9) == "stage1-depth"
    assert raced(0.0, 0.9, "dropped") == "stage0-width"


def test_of_equal_candidates_the_first_wins() -> None:
    (entry, *_), racers = micro_entries(), []
    for stage in (0, 1):
        racers.append(Racer(Candidate(stage, "width", entry), (stage,), (0.5,), "stopped"))
    assert winner(racers, 0.6, _CURRENT) is racers[0]
