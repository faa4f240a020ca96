import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.runs.federation import micro_recipe
from helpers.runs.simulation import micro_entries
from helpers.runs.tuning import CPU, Rates, body_of, chosen, only_file, with_macs

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.config.execution import ExecutionConfig, PrecisionChoice
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.engines.simulation.tuning import TunedProfile, choose_profile
from fedpareto.training.execution.machine import THIS_MACHINE
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.execution.profile import Profile
from fedpareto.training.messages import Failure, Task, Update

#: What is chosen first: all else is measured against it.
_PLAIN = Profile()
#: Leaves only the memory format to be chosen, between two profiles.
_FORMAT_ONLY = dataclasses.replace(_PLAIN.chosen(), memory_format=None)
_CONTIGUOUS = dataclasses.replace(_PLAIN, memory_format="contiguous")

pytestmark = pytest.mark.usefixtures("folder")


# What is set stays as it is.


def test_a_configuration_with_nothing_left_out_is_returned_unmeasured(folder: Path, clock: Rates) -> None:
    asked = Profile("fp32", "contiguous", fused=False, workers=3, threads=2)
    choice, remarks = clock.choose(asked.chosen(), "fp32")
    assert (choice, remarks) == (TunedProfile(asked, "as configured"), [])
    assert clock.measured == []
    assert not folder.exists()


def test_the_threads_of_given_workers_are_an_equal_part_of_all(clock: Rates) -> None:
    clock.machine.count = 8
    for workers, expected in ((1, 8), (2, 4), (3, 2), (8, 1), (9, 1)):
        asked = dataclasses.replace(_PLAIN.chosen(), workers=workers, threads=None)
        assert clock.choose(asked, "fp32")[0] == TunedProfile(
            Profile(workers=workers, threads=expected), "as configured"
        )


@pytest.mark.parametrize(
    ("precision", "config"),
    [
        ("auto", ExecutionConfig()),
        ("fp32", ExecutionConfig(memory_format="contiguous", graphs=False, threads=1)),
        (THIS_MACHINE.precisions(CPU)[-1], ExecutionConfig(workers=2)),
    ],
)
def test_a_profile_is_measured_and_kept(folder: Path, precision: PrecisionChoice, config: ExecutionConfig) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    choice, remarks = chosen(config, precision)
    assert remarks == []
    profile = choice.profile
    for name, value in dataclasses.asdict(config).items():
        assert value is None or getattr(profile, name) == value
    assert profile.precision in THIS_MACHINE.precisions(CPU)
    assert precision in ("auto", profile.precision)
    assert " images/s of a network of " in choice.reason
    # Torch is left as it was.
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    path = only_file(folder)
    assert path.name.startswith("micro-")
    assert path.suffix == ".json"
    assert body_of(path)["profile"] == dataclasses.asdict(profile)
    again = TunedProfile(profile, f"{choice.reason}; measured before, kept in {path}")
    assert chosen(config, precision) == (again, [])


@pytest.mark.parametrize(
    ("precision", "config", "tried"),
    [
        ("auto", ExecutionConfig(), {"precision", "memory_format", "fused", "workers", "threads"}),
        ("fp32", ExecutionConfig(), {"memory_format", "fused", "workers", "threads"}),
        ("auto", ExecutionConfig(memory_format="contiguous"), {"precision", "fused", "workers", "threads"}),
        ("auto", ExecutionConfig(memory_format="channels_last"), {"precision", "fused", "workers", "threads"}),
        ("auto", ExecutionConfig(fused=True), {"precision", "memory_format", "workers", "threads"}),
        ("auto", ExecutionConfig(fused=False), {"precision", "memory_format", "workers", "threads"}),
        ("auto", ExecutionConfig(workers=1), {"precision", "memory_format", "fused"}),
        ("auto", ExecutionConfig(workers=2, threads=3), {"precision", "memory_format", "fused"}),
        ("auto", ExecutionConfig(threads=3), {"precision", "memory_format", "fused", "workers"}),
        ("auto", ExecutionConfig("channels_last", False, graphs=False, workers=2), {"precision"}),
        ("fp32", ExecutionConfig("contiguous", workers=3), {"fused"}),
    ],
)
@pytest.mark.parametrize("preferred", [0, 1])
def test_what_is_set_stays_and_all_else_is_tried_but_compiling(
    clock: Rates,
    precision: PrecisionChoice,
    config: ExecutionConfig,
    tried: set[str],
    preferred: int,
) -> None:
    clock.machine.count = 2
    # The later of two choices is the faster one, or the slower.
    clock.rate = lambda profile, number: 100.0 * (1 + preferred * list(dict.fromkeys(clock.measured)).index(profile))
    profile = clock.choose(config, precision)[0].profile
    order = list(dict.fromkeys(clock.measured[2:]))
    names = [field.name for field in dataclasses.fields(Profile)]
    varied = {name for name in names if len({getattr(other, name) for other in clock.compared}) > 1}
    assert varied == tried
    for name, value in dataclasses.asdict(config).items():
        assert value is None or getattr(profile, name) == value
    assert precision in ("auto", profile.precision)
    assert (profile.compiled, profile.graphs) == (False, False)
    assert profile == order[-preferred]


def test_what_the_device_lacks_is_refused_before_anything_is_measured(clock: Rates) -> None:
    with pytest.raises(UserError, match="precision tf32 is not possible on cpu"):
        clock.choose(precision="tf32")
    with pytest.raises(UserError, match=r"execution\.graphs needs a GPU"):
        clock.choose(ExecutionConfig(graphs=True))
    assert clock.measured == []


# The fastest is chosen, one setting after another.


def test_the_fastest_of_every_setting_is_chosen_and_each_is_measured_from_the_best_so_far(
    clock: Rates,
) -> None:
    clock.machine.count = 4
    factors: dict[tuple[str, object], float] = {
        ("precision", "bf16"): 2.0,
        ("memory_format", "contiguous"): 1.5,
        ("fused", False): 1.2,
        ("workers", 2): 1.3,
        ("workers", 4): 1.1,
    }

    def rate(profile: Profile, number: int) -> float:
        product = 100.0
        for (name, value), factor in factors.items():
            product *= factor if getattr(profile, name) == value else 1.0
        return product

    clock.rate = rate
    choice, _ = clock.choose()
    start = Profile(threads=4)
    low = dataclasses.replace(start, precision="bf16")
    contiguous = dataclasses.replace(low, memory_format="contiguous")
    plain = dataclasses.replace(contiguous, fused=False)
    several = [dataclasses.replace(plain, workers=2, threads=2), dataclasses.replace(plain, workers=4, threads=1)]
    assert choice.profile == several[0]
    # In the order of the stages; the first two measurements size the batch.
    assert list(dict.fromkeys(clock.measured)) == [start, low, contiguous, plain, *several]


def test_without_a_faster_one_the_plain_profile_stays(clock: Rates) -> None:
    assert clock.choose()[0].profile == _PLAIN
    assert set(clock.compared) == {
        _PLAIN,
        _CONTIGUOUS,
        dataclasses.replace(_PLAIN, precision="bf16"),
        dataclasses.replace(_PLAIN, fused=False),
    }


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(99.0, _PLAIN), (102.9, _PLAIN), (102.99, _PLAIN), (103.1, _CONTIGUOUS), (200.0, _CONTIGUOUS)],
)
def test_a_setting_has_to_be_three_per_cent_faster(clock: Rates, rate: float, expected: Profile) -> None:
    clock.rate = lambda profile, number: rate if profile == _CONTIGUOUS else 100.0
    assert clock.choose(_FORMAT_ONLY, "fp32")[0].profile == expected


def test_the_fastest_of_several_measurements_counts(clock: Rates) -> None:
    rates = {_PLAIN: [100.0, 60.0, 120.0, 90.0], _CONTIGUOUS: [30.0, 110.0, 130.0, 125.0]}
    clock.rate = lambda profile, number: rates[profile][max(number - 1, 0)]
    choice, _ = clock.choose(_FORMAT_ONLY, "fp32")
    assert choice.profile == _CONTIGUOUS
    assert choice.reason.startswith("130 images/s of ")
    assert choice.reason.endswith(f" ({_PLAIN}: 120)")
    assert clock.compared == {_PLAIN: 4, _CONTIGUOUS: 4}


@pytest.mark.parametrize(
    ("rates", "measured"),
    [
        ([24.0, 200.0], 1),
        ([26.0, 83.0, 200.0], 2),
        ([26.0, 84.0, 83.0, 83.0], 4),
        ([90.0, 10.0, 10.0, 10.0], 4),
    ],
)
def test_what_is_far_slower_is_not_measured_again(clock: Rates, rates: list[float], measured: int) -> None:
    clock.rate = lambda profile, number: rates[max(number - 1, 0)] if profile == _CONTIGUOUS else 100.0
    choice, _ = clock.choose(_FORMAT_ONLY, "fp32")
    assert choice.profile == _PLAIN
    assert clock.compared == {_PLAIN: 4, _CONTIGUOUS: measured}


# What fails is left out.


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_what_fails_is_remarked_and_never_chosen_even_if_it_was_the_fastest_before(clock: Rates, failing: int) -> None:
    def rate(profile: Profile, number: int) -> float:
        if profile == _CONTIGUOUS and number == failing:
            raise RuntimeError("no such kernel\nException raised from somewhere")
        return 500.0 if profile == _CONTIGUOUS else 100.0

    clock.rate = rate
    choice, remarks = clock.choose(_FORMAT_ONLY, "fp32")
    assert choice.profile == _PLAIN
    assert remarks == [f"{_CONTIGUOUS}: not possible here (no such kernel)"]
    assert choice.reason.endswith(f" ({_CONTIGUOUS}: fails)")
    assert clock.compared[_CONTIGUOUS] == failing


def test_a_profile_whose_steps_fail_is_left_out_of_a_real_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    run = InProcessEngine.run

    def lacking(engine: InProcessEngine, tasks: Iterable[Task]) -> Iterator[Update | Failure]:
        if engine._profile.memory_format == "contiguous":
            raise RuntimeError("contiguous is not implemented for this device")
        return run(engine, tasks)

    monkeypatch.setattr(InProcessEngine, "run", lacking)
    choice, remarks = chosen()
    assert choice.profile.memory_format == "channels_last"
    (remark,) = remarks
    assert remark.startswith("contiguous ")
    assert remark.endswith(": not possible here (contiguous is not implemented for this device)")
    assert ": fails" in choice.reason


def test_where_the_plain_profile_fails_another_is_chosen(clock: Rates) -> None:
    def rate(profile: Profile, number: int) -> float:
        # The first two measurements only size the batch.
        if profile == _PLAIN and number:
            raise RuntimeError("broken")
        return 1.0

    clock.rate = rate
    choice, remarks = clock.choose(_FORMAT_ONLY, "fp32")
    assert choice.profile == _CONTIGUOUS
    assert remarks == [f"{_PLAIN}: not possible here (broken)"]


def test_where_everything_fails_the_error_names_the_device_and_nothing_is_kept(folder: Path, clock: Rates) -> None:
    def rate(profile: Profile, number: int) -> float:
        if number:
            raise RuntimeError("broken")
        return 100.0

    clock.rate = rate
    with pytest.raises(UserError, match=r"^nothing trains on cpu: channels-last fp32.* fails; try another --device"):
        clock.choose()
    assert not folder.exists()


def test_a_profile_that_needs_more_memory_than_there_is_is_left_out(clock: Rates) -> None:
    def rate(profile: Profile, number: int) -> float:
        if profile == _CONTIGUOUS:
            raise OutOfMemoryError(micro_entries()[0].architecture, 8, CPU)
        return 100.0

    clock.rate = rate
    choice, remarks = clock.choose(_FORMAT_ONLY, "fp32")
    assert choice.profile == _PLAIN
    assert remarks == [f"{_CONTIGUOUS}: not possible here (out of memory on cpu at batch 8)"]


def test_where_not_even_a_small_batch_fits_the_error_says_what_to_do(folder: Path, clock: Rates) -> None:
    def rate(profile: Profile, number: int) -> float:
        raise OutOfMemoryError(micro_entries()[0].architecture, 8, CPU)

    clock.rate = rate
    with pytest.raises(UserError) as caught:
        clock.choose()
    message = str(caught.value)
    assert message.startswith("out of memory on cpu: even a batch of 8 of the network of ")
    assert message.endswith(" MACs does not fit; use a smaller space, or another --device")
    assert not folder.exists()


# What is measured: one network, at a batch that makes a step short.


@pytest.mark.parametrize(
    ("batch_size", "rate", "expected"),
    [(64, 100.0, 25), (64, 10.0, 8), (64, 1e9, 64), (4, 1e9, 4), (4, 1.0, 4), (8, 1e9, 8), (64, 256.0, 64)],
)
def test_the_measured_batch_makes_a_step_of_a_quarter_second_but_is_not_below_eight_nor_above_the_runs(
    clock: Rates, batch_size: int, rate: float, expected: int
) -> None:
    clock.rate = lambda profile, number: rate
    choice, _ = clock.choose(recipe=micro_recipe(batch_size=batch_size))
    assert f"{rate:.0f} images/s of a network of " in choice.reason
    assert f" MACs, measured at batch {expected} (" in choice.reason


@pytest.mark.parametrize(
    ("macs", "expected"),
    [
        # √(1000 · 100,000) = 10,000.
        ((1000, 10_000, 50_500, 100_000), 10_000),
        ((1000, 5000, 19_000, 100_000), 19_000),
        ((1000, 5000, 21_000, 100_000), 5000),
        ((1000, 2000, 90_000, 100_000), 2000),
        ((1000, 1000), 1000),
        ((7000,), 7000),
    ],
)
def test_the_measured_network_is_nearest_to_the_geometric_mean(
    folder: Path, clock: Rates, macs: tuple[int, ...], expected: int
) -> None:
    choice, _ = clock.choose(entries=with_macs(*macs))
    assert body_of(only_file(folder))["macs"] == expected
    assert f"a network of {format_quantity(expected)} MACs" in choice.reason


def test_the_reason_names_all_rates_the_fastest_first(clock: Rates) -> None:
    rates = {_PLAIN: 100.0, dataclasses.replace(_PLAIN, precision="bf16"): 90.4, _CONTIGUOUS: 95.6}
    clock.rate = lambda profile, number: rates[profile]
    choice, _ = clock.choose(dataclasses.replace(_FORMAT_ONLY, fused=True))
    assert choice.reason.endswith(
        " MACs, measured at batch 8 (contiguous fp32, 1 client at a time on 1 thread: 96; "
        "channels-last bf16, 1 client at a time on 1 thread: 90)"
    )
    assert choice.reason.startswith("100 images/s of a network of ")


def test_with_nothing_to_choose_from_the_reason_says_so(clock: Rates) -> None:
    clock.machine.possible = ["fp32"]
    choice, remarks = clock.choose(_PLAIN.chosen(), "auto")
    assert choice == TunedProfile(_PLAIN, "there is nothing to choose from")
    assert remarks == []


@pytest.mark.parametrize("left_out", ["graphs", "memory_format", "fused", "workers", "nothing"])
def test_what_has_one_candidate_is_neither_measured_nor_announced_nor_kept(
    folder: Path, clock: Rates, left_out: str
) -> None:
    # On a CPU of one thread there are no graphs and no clients at once.
    config = _PLAIN.chosen()
    if left_out != "nothing":
        config = ExecutionConfig(**{**dataclasses.asdict(config), left_out: None})
    reports: list[object] = []
    listener = ProgressListener(report=lambda *report: reports.append(report))
    choice = choose_profile("fp32", config, micro_recipe(), micro_entries(), CPU, listener, clock, clock.machine)
    measured = left_out in ("memory_format", "fused")
    assert bool(clock.measured) == bool(reports) == folder.exists() == measured
    assert choice.profile == _PLAIN


def test_a_slow_machine_measures_every_candidate_once_when_time_is_up(
    clock: Rates,
) -> None:
    clock.choose(_FORMAT_ONLY, "fp32")
    at_ease = len(clock.measured)
    # An hour passes between two looks at it.
    clock.step = 3600.0
    clock.measured.clear()
    clock.choose(dataclasses.replace(_FORMAT_ONLY, threads=1), "fp32", entries=with_macs(7000))
    assert set(clock.measured) == {_PLAIN, _CONTIGUOUS}
    assert len(clock.measured) < at_ease


def test_measuring_reports_its_stages(clock: Rates) -> None:
    reports: list[tuple[str, int, int]] = []
    listener = ProgressListener(report=lambda what, done, total: reports.append((what, done, total)))
    asked = ExecutionConfig(kernels="torch")
    choose_profile("auto", asked, micro_recipe(), micro_entries(), CPU, listener, clock, clock.machine)
    assert reports == [("measuring how to train", done, 6) for done in range(7)]
