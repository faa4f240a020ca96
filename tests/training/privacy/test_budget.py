"""A budget of privacy: noise that is solved for, runs that end before it is passed, and what weights cost."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import called
from helpers.networks.strategies import runs
from helpers.runs.federation import arguments_of, finished_run, micro_config, read_metrics
from helpers.runs.simulation import (
    checkpoint_names,
    fresh_start,
    recorder,
    short_config,
    simulated_run,
    train_run,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.cli import main
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.evaluation import CheckpointConfig, EvaluationConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.privacy.accountant import epsilon, exposure_after, least_noise
from fedpareto.training.privacy.ledger import Release
from fedpareto.training.rounds.budget import planned_exposures, weight_words, with_solved_noise
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import newest_checkpoint
from fedpareto.training.runs.folder import open_ledger

_KEY = 12345


def _private(privacy: PrivacyConfig, **changes: object) -> RunConfig:
    return short_config(**{"rounds": 6, "privacy": privacy, **changes})


def _delta_of(epsilon_: float, multiplier: float) -> float:
    """δ of a Gaussian mechanism at ε, by hand (Balle and Wang 2018, theorem 8)."""
    mean = 1 / multiplier
    far = norm.logcdf(-mean / 2 - epsilon_ / mean)
    return float(norm.cdf(mean / 2 - epsilon_ / mean) - math.exp(epsilon_ + far))


@runs(40)
@given(exposure=st.floats(0.1, 500.0), budget=st.floats(0.05, 50.0), delta=st.sampled_from([1e-3, 1e-5, 1e-8]))
def test_the_solved_noise_is_the_least_within_the_budget(exposure: float, budget: float, delta: float) -> None:
    noise = least_noise(exposure, budget, delta)
    assert noise == float(f"{noise:.4g}")
    assert epsilon(exposure, noise, delta) <= budget
    # By hand: at ε of the budget δ is within what was asked for, and with a thousandth less noise it is not.
    multiplier = noise / math.sqrt(exposure)
    assert _delta_of(budget, multiplier) <= delta * (1 + 1e-6)
    assert _delta_of(budget, multiplier * (1 - 2e-3)) > delta


@pytest.mark.parametrize("method", ["fedpareto", "fedavg", "deepfednas", "superfednas"])
@pytest.mark.parametrize("largest", [None, 0.9])
def test_the_planned_exposure_is_that_of_the_run(tmp_path: Path, method: str, largest: float | None) -> None:
    config = _private(PrivacyConfig(clip=0.5, noise=1.0), method=method, server=ServerConfig(largest), rounds=5)
    run = simulated_run(tmp_path, config, noise_key=_KEY)
    start = fresh_start(run)
    planned = list(planned_exposures(config, run.method, run.space, start.state))
    state = train(run, *start)
    assert len(planned) == 5
    assert planned[-1] == max(state.exposure)
    spent = [epsilon(exposure, 1.0, 1e-5) for exposure in planned]
    assert [record.epsilon for record in recorder(run).records] == spent


def test_over_flower_a_client_is_taken_to_be_in_every_round(tmp_path: Path) -> None:
    config = _private(PrivacyConfig(clip=0.5, noise=1.0))
    run = simulated_run(tmp_path, config, noise_key=_KEY)
    connected = dataclasses.replace(config, engine="flower")
    assert list(planned_exposures(connected, run.method, run.space, fresh_start(run).state)) == [1, 2, 3, 4, 5, 6]


def _solved(tmp_path: Path, privacy: PrivacyConfig, **changes: object) -> tuple[RunConfig, str | None]:
    config = _private(privacy, **changes)
    run = simulated_run(tmp_path, dataclasses.replace(config, privacy=PrivacyConfig(clip=1.0)))
    return with_solved_noise(config, run.method, run.space, fresh_start(run).state)


@pytest.mark.slow
def test_noise_auto_is_the_least_for_the_planned_rounds(tmp_path: Path) -> None:
    config, words = _solved(tmp_path, PrivacyConfig(clip=0.5, noise="auto", epsilon=8.0))
    assert words is not None
    noise = f"{config.privacy.multiplier:g}"
    assert words.startswith(f"privacy.noise is {noise}: after 6 rounds no client has more than (ε, δ)")
    run = simulated_run(tmp_path, config, noise_key=_KEY)
    state, _ = train_run(run)
    spent = recorder(run).records[-1].epsilon
    assert state.round == 6
    assert spent is not None
    assert 7.9 < spent <= 8.0
    less = dataclasses.replace(config.privacy, noise=config.privacy.multiplier * 0.999)
    ended = simulated_run(tmp_path / "less", dataclasses.replace(config, privacy=less), noise_key=_KEY)
    assert train_run(ended)[0].round == 5


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        (PrivacyConfig(clip=1.0, noise=0.1, epsilon=1.0), r"a single round with privacy\.noise 0\.1 has \(ε, δ\)"),
        (
            PrivacyConfig(clip=1.0, noise="auto", epsilon=1e-4, delta=1e-12),
            r"would need a privacy\.noise of .* nothing is learnt",
        ),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_with_the_reason(
    tmp_path: Path, privacy: PrivacyConfig, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        _solved(tmp_path, privacy)


def test_a_budget_that_ends_the_run_early_is_said_beforehand(tmp_path: Path) -> None:
    _, words = _solved(tmp_path, PrivacyConfig(clip=1.0, noise=1.0, epsilon=7.0))
    assert words is not None
    assert "ends the run after " in words
    assert _solved(tmp_path, PrivacyConfig(clip=1.0, noise=9.0, epsilon=7.0))[1] is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip": 1.0, "noise": "auto"}, r"noise is auto without privacy\.epsilon"),
        ({"clip": 1.0, "epsilon": 8.0}, r"privacy\.epsilon is 8 without privacy\.noise"),
        ({"noise": "auto", "epsilon": 8.0}, r"without privacy\.clip"),
        ({"clip": 1.0, "noise": 1.0, "epsilon": 0.0}, r"privacy\.epsilon is 0\.0; it must be positive"),
        ({"clip": 1.0, "noise": 1.0, "epsilon": math.nan}, r"privacy\.epsilon is nan"),
        ({"clip": 1.0, "noise": 1.0, "epsilon": math.inf}, r"privacy\.epsilon is inf"),
    ],
)
def test_settings_that_make_no_budget_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        PrivacyConfig(**settings)


def test_noise_is_not_solved_for_rounds_that_are_not_known() -> None:
    with pytest.raises(UserError, match=r"noise is auto with compute 50T"):
        RunConfig(privacy=PrivacyConfig(clip=1.0, noise="auto", epsilon=8.0), compute="50T")
    with pytest.raises(ValueError, match="no number"):
        _ = PrivacyConfig(clip=1.0, noise="auto", epsilon=8.0).multiplier


@pytest.mark.parametrize("every", [1, 4])
def test_a_run_ends_before_a_round_that_would_pass_the_budget(tmp_path: Path, every: int) -> None:
    privacy = PrivacyConfig(clip=0.5, noise=1.0, epsilon=9.0)
    config = _private(
        privacy,
        rounds=20,
        evaluation=EvaluationConfig(every=20, probes=2, calibration_images=16, batch_size=16),
        checkpoint=CheckpointConfig(every=every, keep=9),
    )
    run = simulated_run(tmp_path, config, noise_key=_KEY)
    state, _ = train_run(run)
    records = recorder(run).records
    spent = [record.epsilon or 0.0 for record in records]
    assert 1 <= state.round < 20
    assert spent == sorted(spent)
    assert spent[-1] <= 9.0
    plan = run.method.assign(state, range(5))
    assert epsilon(max(exposure_after(state.exposure, plan.weights, 5)), 1.0, 1e-5) > 9.0
    # It ends as any run does: the last round is evaluated and kept.
    assert [bool(record.probes) for record in records] == [False] * (state.round - 1) + [True]
    assert checkpoint_names(tmp_path)[-1] == f"round-{state.round:06d}"
    assert recorder(run).checkpoints[-1][1] == ["best", "final"]
    # No more of it is trained when it is begun once more.
    again = simulated_run(tmp_path, config, noise_key=_KEY)
    assert train(again, state, fresh_start(again).models) == state
    assert not recorder(again).records


class _Few:
    """An engine of which fewer clients are there than a plan for all of them takes for granted."""

    def __init__(self, inner: Any, there: list[int]) -> None:
        self._inner, self._there = inner, there

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def available(self) -> list[int]:
        return self._there


def test_a_client_that_is_there_and_has_no_privacy_left_is_not_asked(tmp_path: Path) -> None:
    config = _private(
        PrivacyConfig(clip=0.5, noise=1.0, epsilon=8.0),
        checkpoint=CheckpointConfig(every=9, keep=2),
        clients=ClientsConfig(count=5, per_round=1),
        # The draws of rounds 2 and 3 among all clients are of others than the only one that will be there.
        seed=0,
    )
    run = simulated_run(tmp_path, config, noise_key=_KEY)
    start = fresh_start(run)
    for done in (1, 2):
        assert 0 not in run.method.assign(dataclasses.replace(start.state, round=done), range(5)).assigned
    run = dataclasses.replace(run, engine=_Few(run.engine, [0]))
    state, _ = train_run(run)
    assert epsilon(2.0, 1.0, 1e-5) < 8.0 < epsilon(3.0, 1.0, 1e-5)
    assert (state.round, state.exposure) == (2, (2.0, 0.0, 0.0, 0.0, 0.0))
    assert checkpoint_names(tmp_path) == ["round-000002"]


def test_a_round_that_was_released_may_be_repeated_at_the_edge_of_the_budget_but_not_with_other_answers(
    tmp_path: Path,
) -> None:
    config = _private(PrivacyConfig(clip=0.5, noise="auto", epsilon=8.0), rounds=2)
    run = simulated_run(tmp_path, dataclasses.replace(config, privacy=PrivacyConfig(clip=0.5)))
    config, _ = with_solved_noise(config, run.method, run.space, fresh_start(run).state)
    whole = simulated_run(tmp_path / "whole", config, noise_key=_KEY)
    state, _ = train_run(whole)
    # As if killed before its first checkpoint: both rounds have been released.
    again = simulated_run(tmp_path / "whole", config, noise_key=_KEY)
    assert train_run(again)[0] == state
    # The second round was released with other answers: there is none left for these.
    ledger = simulated_run(tmp_path / "other", config, noise_key=_KEY).ledger
    assert ledger is not None
    plan = run.method.assign(dataclasses.replace(fresh_start(run).state, round=1), range(5))
    ledger.write(Release(2, "ab" * 32, plan.weights))
    other = simulated_run(tmp_path / "other", config, noise_key=_KEY)
    with pytest.raises(UserError, match=r"round 2 was released before.*round 1 is kept in .*larger --privacy\.epsilon"):
        train_run(other)
    assert checkpoint_names(tmp_path / "other")[-1] == "round-000001"


_EVALUATED = EvaluationConfig(every=50, probes=2, calibration_images=64, batch_size=64)


def test_the_command_solves_for_noise_and_writes_it_down(tmp_path: Path) -> None:
    config = micro_config(
        tmp_path, rounds=2, privacy=PrivacyConfig(clip=1.0, noise="auto", epsilon=8.0), evaluation=_EVALUATED
    )
    done = called(main, *arguments_of(config))
    assert done.code == 0, done.err
    told = " ".join(done.err.split())
    run = Path(str(config.output))
    written = (run / "config.yaml").read_text()
    noise = next(line.split()[1] for line in written.splitlines() if line.strip().startswith("noise:"))
    assert f"privacy.noise is {float(noise):g}: after 2 rounds no client has more than (ε, δ) = (" in told
    last = read_metrics(run)[-1]["epsilon"]
    assert 7.9 < last <= 8.0
    assert "largest_weight: 0.3333333333333333" in written


@pytest.mark.slow
def test_the_command_ends_by_the_budget_and_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    run = finished_run(
        tmp_path, rounds=6, privacy=PrivacyConfig(clip=1.0, noise=1.0, epsilon=6.0), evaluation=_EVALUATED
    )
    records = read_metrics(run)
    assert 0 < len(records) < 6
    assert records[-1]["probes"]
    assert records[-1]["epsilon"] <= 6.0
    spent = called(main, "--resume", run)
    assert spent.code == 0, spent.err
    told = " ".join(spent.err.split())
    assert f"is finished after {len(records)} round" in told
    assert "give it more with a larger --privacy.epsilon" in told
    assert "the budget of ε 6 is spent" in told
    assert "next: search-subnet" in spent.err
    assert read_metrics(run) == records
    for less in ("5", "null"):
        refused = called(main, "--resume", run, "--privacy.epsilon", less)
        assert refused.code == 2
        assert "a resumed run may only be given a larger budget" in " ".join(refused.err.split())
    more = called(main, "--resume", run, "--privacy.epsilon", "9")
    assert more.code == 0, more.err
    assert "the budget is ε 9 from here on; it was 6" in " ".join(more.err.split())
    assert len(read_metrics(run)) > len(records)
    assert read_metrics(run)[-1]["epsilon"] <= 9.0


def test_with_noise_weights_are_equal_unless_asked_for_others(tmp_path: Path) -> None:
    noisy = PrivacyConfig(clip=1.0, noise=1.0)
    assert RunConfig().largest_weight == RunConfig(privacy=PrivacyConfig(clip=1.0)).largest_weight == 0.9
    config = _private(noisy, method="deepfednas", clients=ClientsConfig(count=5, per_round=4))
    assert config.largest_weight == 0.25
    run = simulated_run(tmp_path, config, noise_key=_KEY)
    weights = run.method.assign(fresh_start(run).state, range(5)).weights
    assert list(weights.values()) == pytest.approx([0.25] * 4)
    assert weight_words(config) is None
    chosen = dataclasses.replace(config, server=ServerConfig(0.9))
    assert chosen.largest_weight == 0.9
    # Entries of one small client alone: 0.9 over 0.1/3 in place of 1.
    assert "by a factor of 27" in str(weight_words(chosen))
    # Methods that have equal weights anyway, and one client a round, are not told of it.
    assert weight_words(dataclasses.replace(chosen, method="fedpareto")) is None
    assert weight_words(dataclasses.replace(config, clients=ClientsConfig(count=5, per_round=1))) is None
    assert weight_words(dataclasses.replace(chosen, privacy=PrivacyConfig(clip=1.0))) is None


def test_the_command_tells_what_a_large_weight_costs(tmp_path: Path) -> None:
    config = micro_config(
        tmp_path,
        rounds=1,
        method="deepfednas",
        server=ServerConfig(0.9),
        privacy=PrivacyConfig(clip=1.0, noise=1.0),
        evaluation=_EVALUATED,
    )
    done = called(main, *arguments_of(config))
    assert done.code == 0, done.err
    assert "by a factor of 18" in " ".join(done.err.split())


@pytest.mark.slow
def test_a_lost_ledger_or_an_earlier_key_ends_a_run_that_is_not_finished(tmp_path: Path) -> None:
    run = finished_run(tmp_path, rounds=2, privacy=PrivacyConfig(clip=1.0, noise=1.0), evaluation=_EVALUATED)
    assert len(open_ledger(run).exposure) == 6
    lines = (run / "releases.jsonl").read_bytes()
    for content, words in (
        (lines[:-4], "releases.jsonl is damaged (line 3 is cut off)"),
        (b"".join(lines.splitlines(keepends=True)[:2]), "has 1 release, fewer than the run's checkpoint knows of"),
    ):
        (run / "releases.jsonl").write_bytes(content)
        refused = called(main, "--resume", run, "--rounds", "3")
        assert refused.code == 2
        assert words in " ".join(refused.err.split())
    (run / "releases.jsonl").unlink()
    refused = called(main, "--resume", run, "--rounds", "3")
    assert (refused.code, "is missing" in refused.err) == (2, True)
    (run / "releases.jsonl").write_bytes(lines)
    # A run of before: it has the key of before, which its digests agree with, and no ledger.
    (run / "digests.json").unlink()
    (run / "noise.key").write_text(f"{'12345678' * 4}\n")
    refused = called(main, "--resume", run, "--rounds", "3")
    assert refused.code == 2
    assert "had 32 bits of secret" in " ".join(refused.err.split())
    assert newest_checkpoint(run).name == "round-000002"
