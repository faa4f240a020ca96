"""What rounds cost: exposures, and ε beside two other ways to compute it."""

import math
import sys
from pathlib import Path

import dp_accounting
import pytest
from dp_accounting import pld
from helpers.networks.strategies import runs
from helpers.runs.federation import arguments_of, micro_config
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.privacy import LEAST_NOISE, PrivacyConfig
from fedpareto.training.privacy.accountant import Guarantee, epsilon, exposure_after, guarantee

_noises, _exposures = st.floats(0.3, 20.0), st.floats(0.01, 200.0)
_deltas = st.sampled_from([1e-3, 1e-5, 1e-7])


def _closed_form(multiplier: float, delta: float) -> float:
    """Return ε of one Gaussian mechanism from its trade-off between ε and δ (Balle and Wang 2018, theorem 8)."""
    mean = 1 / multiplier

    def excess(value: float) -> float:
        far = math.exp(min(700.0, value + float(norm.logcdf(-mean / 2 - value / mean))))
        return float(norm.cdf(mean / 2 - value / mean)) - far - delta

    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, 10 + 10 * mean + mean**2, xtol=1e-12))


@runs(60)
@given(exposure=_exposures, noise=_noises, delta=_deltas)
def test_epsilon_is_that_of_one_gaussian_mechanism_of_all_rounds(exposure: float, noise: float, delta: float) -> None:
    expected = _closed_form(noise / math.sqrt(exposure), delta)
    assert epsilon(exposure, noise, delta) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "shares"), [(1.0, [1.0] * 10), (2.0, [1.0, 0.5, 0.25, 0.1] * 4), (0.8, [0.3, 1.0])])
def test_another_accountant_that_composes_round_by_round_agrees(noise: float, shares: list[float]) -> None:
    other = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    for share in shares:
        other.compose(dp_accounting.GaussianDpEvent(noise / share))
    exposure: tuple[float, ...] = ()
    for share in shares:
        exposure = exposure_after(exposure, {0: 0.7 * share, 1: 0.7}, 2)
    found = epsilon(exposure[0], noise, 1e-5)
    # The other rounds privacy losses up, to a grid of 1e-4.
    assert found <= other.get_epsilon(1e-5) + 1e-9
    assert found == pytest.approx(other.get_epsilon(1e-5), rel=1e-2)


@runs(40)
@given(exposure=_exposures, more=st.floats(0.01, 5.0), noise=_noises, delta=_deltas)
def test_epsilon_rises_with_rounds_and_falls_with_noise_and_delta(
    exposure: float, more: float, noise: float, delta: float
) -> None:
    here = epsilon(exposure, noise, delta)
    assert here >= 0
    assert epsilon(exposure + more, noise, delta) >= here
    assert epsilon(exposure, noise + more, delta) <= here
    assert epsilon(exposure, noise, delta / 10) >= here


def test_exposure_adds_squares_of_weights_over_the_largest_of_the_round() -> None:
    first = exposure_after((), {3: 0.9, 1: 0.05, 0: 0.05}, 5)
    assert first == pytest.approx(((0.05 / 0.9) ** 2, (0.05 / 0.9) ** 2, 0.0, 1.0, 0.0))
    second = exposure_after(first, {3: 0.5, 4: 0.5}, 5)
    assert second == pytest.approx((first[0], first[1], 0.0, 2.0, 1.0))


@runs(30)
@given(data=st.data(), clients=st.integers(1, 8))
def test_a_client_is_never_exposed_more_than_by_its_rounds(data: st.DataObject, clients: int) -> None:
    weights = st.dictionaries(st.integers(0, clients - 1), st.floats(0.01, 1.0), min_size=1)
    rounds = data.draw(st.lists(weights, min_size=1, max_size=6))
    exposure: tuple[float, ...] = ()
    for planned in rounds:
        exposure = exposure_after(exposure, planned, clients)
    for client, spent in enumerate(exposure):
        assert 0 <= spent <= sum(client in planned for planned in rounds)
    assert sum(exposure) >= len(rounds)


def test_the_guarantee_is_that_of_the_most_exposed_client() -> None:
    privacy = PrivacyConfig(clip=1.0, noise=2.0)
    assert guarantee(privacy, (0.5, 3.0, 0.0)) == Guarantee(epsilon(3.0, 2.0, 1e-5), 1e-5)
    assert guarantee(privacy, ()) == Guarantee(0.0, 1e-5)
    assert guarantee(PrivacyConfig(clip=1.0), (0.5, 3.0)) is None
    assert str(Guarantee(3.2149, 1e-5)) == "(ε, δ) = (3.21, 1e-05)"


@pytest.mark.parametrize("noise", [LEAST_NOISE, 1e-4, 1e3])
def test_very_little_and_very_much_noise_give_numbers(noise: float) -> None:
    assert 0 <= epsilon(1000.0, noise, 1e-5) < math.inf


def test_without_the_accountant_a_run_with_noise_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fedpareto.training.cli import main

    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(SystemExit) as caught:
        main(arguments_of(micro_config(tmp_path, privacy=PrivacyConfig(clip=1.0, noise=1.0))))
    assert caught.value.code == 2
    assert "dp_accounting is not installed; install it with: pip install 'fedpareto[privacy]'" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "run").exists()


def test_noise_of_which_no_epsilon_can_be_found_is_refused() -> None:
    with pytest.raises(UserError, match=r"privacy\.noise is 1e-300; it must be 0 for none, or at least 1e-06"):
        PrivacyConfig(clip=1.0, noise=1e-300)
