"""The benchmark of a GPU, on the CPU: its parts, and all of it where nothing but torch and its wheels is installed."""

import dataclasses
import json
import signal
import time
from pathlib import Path

import gpu_rates
import numpy as np
import pytest
import torch
from bare_machine import BENCHMARKS, run_bare
from federation import MICRO, random_images
from gpu_rates import PLAIN, Bench, Manner, Network, fastest, measured, plan, profile_of
from gpu_report import Accuracy, Peak, Point, Rate, Report, Training, markdown, rate_row, read_report, write_report
from gpu_training import Images, dirichlet, fitted
from hypothesis import given
from hypothesis import strategies as st
from local_training import Pass
from mosaics import write_mosaic
from reruns import Rerun
from roofline import share_of_peak
from simulation import micro_entries
from strategies import runs
from time_share import Cut, Until, cut_after

from supernet.errors import UserError
from training.execution import Precision, Profile
from training.memory import OutOfMemoryError

_CPU = torch.device("cpu")
_GPU = torch.device("cuda:0")

_RATE = Rate("mobilenet-cifar", "middle", 60_000_000, "ours", "bf16", "channels_last", True, 4, "deterministic", 1234.5)
_REPORT = Report(
    machine=("a card", "versions"),
    minutes=8.0,
    batch=64,
    peaks=(Peak("bf16", 7.2e14),),
    rates=(dataclasses.replace(_RATE, ratio=5.5), dataclasses.replace(_RATE, images_per_second=None, problem="a | b")),
    training=Training(
        "bf16", 20, 8, 7, 100, 2.0, 0.01, 5000, (Point(3, 1.5, 0.25),), (Accuracy(25_000_000, 24_999_999, 0.5),)
    ),
    notes=("a note",),
    seconds=400.0,
    complete=True,
)


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", _REPORT)
    assert read_report(tmp_path / "r.json") == _REPORT


def test_the_tables_are_made_of_the_report() -> None:
    text = markdown(_REPORT)
    cells = "| mobilenet-cifar middle (60M MACs) | ours, graphs, 4 at once | bf16 | 1,234 | 5.50× | – | – | – | – |"
    assert cells in text.splitlines()
    assert "| a / b |" in text
    assert "| 25M | 24,999,999 | 50.0% |" in text
    assert "| 3 | 2 s | 25.0% |" in text
    assert "50 images/s" in text
    assert "bf16 720.00 TFLOP/s" in text
    assert "complete" in text


@pytest.mark.parametrize("text", ["{", "[]", '{"machine": 3}', '{"format": 1}'])
def test_what_is_no_report_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read_report(tmp_path / "r.json")
    assert "\n" not in str(caught.value)


def test_the_report_of_another_version_is_refused(tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", dataclasses.replace(_REPORT, format=2))
    with pytest.raises(UserError, match="has format 2"):
        read_report(tmp_path / "r.json")


def test_a_step_takes_six_operations_a_mac() -> None:
    assert share_of_peak(rate=1000.0, macs=100_000_000, peak=6e12) == pytest.approx(0.1)


def test_a_block_is_left_when_its_time_is_used_up_and_the_signal_is_as_before() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(Cut), cut_after(0.01):
        signal.pause()
    with cut_after(60.0):
        pass
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_block_without_time_is_not_entered() -> None:
    entered = False
    with pytest.raises(KeyError), cut_after(0.0, KeyError):
        entered = True
    assert not entered


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[Precision]:
    """What the card can compute in."""
    possible: list[Precision] = ["fp32", "tf32", "bf16", "fp16"]
    monkeypatch.setattr(gpu_rates, "possible_precisions", lambda device: possible)
    return possible


def test_the_most_telling_rows_come_first_and_none_twice(card: list[Precision]) -> None:
    planned = list(plan(("mobilenet-tiny",), _GPU))
    manners = [manner for _, manner in planned]
    assert [network.size for network, _ in planned[:9:3]] == ["largest", "middle", "smallest"]
    best = manners[2].profile
    assert (best.precision, best.graphs, best.workers, best.memory_format) == ("bf16", True, 1, "channels_last")
    assert manners[:2] == list(PLAIN)
    assert {manner.profile.workers for manner in manners[9:18]} == {8, 4, 2}
    assert len({(network.size, manner) for network, manner in planned}) == len(planned)
    kinds = {(manner.profile.precision, manner.profile.graphs) for manner in manners if manner.way == "ours"}
    assert kinds == {(precision, graphs) for precision in ("bf16", "tf32", "fp32") for graphs in (False, True)}


def test_a_card_without_bf16_is_measured_in_fp32(card: list[Precision]) -> None:
    card[:] = ["fp32", "fp16"]
    profiles = {manner.profile.precision for _, manner in plan(("mobilenet-tiny",), _GPU)}
    assert profiles == {"fp32"}


class _Stand:
    """Stands in for rounds in miniature: every pass is what the next of ``answers`` says."""

    answers: list[float | Exception]

    def __init__(self, *args: object) -> None:
        del args

    def run(self, steps: int) -> Pass:
        del steps
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Pass(answer, 0.02, 1000)


def _measured(monkeypatch: pytest.MonkeyPatch, *answers: float | Exception) -> Rate:
    monkeypatch.setattr(gpu_rates, "Ours", _Stand)
    _Stand.answers = list(answers)
    network = Network(MICRO, "largest", micro_entries()[-1])
    bench = Bench(_CPU, 8, Rerun, {"fp32": 1e9})
    (rate,) = measured(iter([(network, Manner("ours", Profile()))]), bench, Until(time.monotonic() + 60))
    return rate


_FULL = OutOfMemoryError(micro_entries()[-1].architecture, 8, _GPU)


def test_the_fastest_pass_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = _measured(monkeypatch, 1e9, 10.0, 30.0, 20.0)
    assert rate.images_per_second == 30.0
    assert rate.peak_share == pytest.approx(30.0 * micro_entries()[-1].macs * 6 / 1e9)
    assert (rate.outside_sgd, rate.memory, rate.problem) == (0.02, 1000, None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_FULL, "out of memory on cuda:0 at batch 8"),
        (RuntimeError("capture failed\nlong story"), "fails: capture failed"),
        (RuntimeError(), "fails: RuntimeError"),
        (UserError("it cannot be recorded"), "fails: it cannot be recorded"),
        (Cut(), "cut after 2 s"),
    ],
    ids=["memory", "driver", "silent", "user", "cut"],
)
def test_a_row_that_fails_says_why_and_the_next_is_measured(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    rate = _measured(monkeypatch, error)
    assert (rate.images_per_second, rate.problem) == (None, words)
    assert words in rate_row(rate)


def test_the_passes_before_a_cut_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _measured(monkeypatch, 1.0, 2.0, 5.0, Cut()).images_per_second == 5.0


def test_nothing_is_measured_without_time() -> None:
    network = Network(MICRO, "largest", micro_entries()[-1])
    bench = Bench(_CPU, 8, Rerun, {})
    assert list(measured(iter([(network, PLAIN[0])]), bench, Until(time.monotonic() - 1))) == []


def test_the_fastest_profile_of_the_middle_network_trains() -> None:
    others = [
        dataclasses.replace(_RATE, images_per_second=9000.0, size="smallest"),
        dataclasses.replace(_RATE, images_per_second=9000.0, kernels="fastest"),
        dataclasses.replace(_RATE, images_per_second=9000.0, way="plain loop"),
        dataclasses.replace(_RATE, images_per_second=None, clients=8),
        dataclasses.replace(_RATE, images_per_second=900.0, clients=2),
    ]
    found = fastest([*others, _RATE], "mobilenet-cifar")
    assert found is not None
    assert found == _RATE
    profile = profile_of(found)
    assert (profile.precision, profile.graphs, profile.workers) == ("bf16", True, 4)
    assert fastest(others[:4], "mobilenet-cifar") is None


@runs(10)
@given(st.integers(2, 8), st.integers(1, 4), st.integers(0, 2**32))
def test_dirichlet_clients_have_every_image_once_and_a_batch_at_least(clients: int, classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, 400)
    parts = dirichlet(labels, clients, 4, np.random.default_rng(seed))
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(400))
    assert min(map(len, parts)) >= 4


@pytest.mark.parametrize(("trainable", "counts"), [(0.0, (160, 256)), (3000.0, (250, 256)), (1e9, (300, 290))])
def test_a_slow_device_trains_and_tests_on_fewer_images(trainable: float, counts: tuple[int, int]) -> None:
    found = fitted(Images(random_images(300), random_images(290)), 2, trainable)
    assert (len(found.train), len(found.test)) == counts
    assert torch.unique(found.train.images, dim=0).shape[0] == counts[0]


def test_too_few_images_for_the_clients_are_refused() -> None:
    with pytest.raises(UserError, match="cannot spread 10 images over 5 clients"):
        dirichlet(np.zeros(10, dtype=np.int64), 5, 3, np.random.default_rng(0))


def test_it_starts_where_only_torch_and_the_listed_wheels_are_installed(tmp_path: Path) -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("gpu*.py"))
    program = (
        f"import {', '.join(names)}\n"
        "from gpu_rates import networks_of\n"
        "from supernet.space import load_space\n"
        "print([network.size for network in networks_of(load_space('mobilenet-tiny'))])\n"
    )
    done = run_bare(program, folder=tmp_path)
    assert (done.stdout, done.stderr) == ("['largest', 'middle', 'smallest']\n", "")


def test_a_machine_without_the_wheels_is_told_of_their_list(tmp_path: Path) -> None:
    program = (
        "import runpy, sys\n"
        "sys.modules['rich'] = None\n"
        f"sys.argv = ['gpu.py', '--table', 'x']; runpy.run_path({str(BENCHMARKS / 'gpu.py')!r}, run_name='__main__')\n"
    )
    done = run_bare(program, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks/gpu.py: error: rich")
    assert "benchmarks/gpu-requirements.txt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_all_of_it_on_a_cpu_with_a_recorder_in_place_of_graphs(tmp_path: Path) -> None:
    write_mosaic(tmp_path, "train", 20, 20)
    write_mosaic(tmp_path, "test", 5, 10)
    arguments = ["--data", ".", "--minutes", "0.8", "--device", "cpu", "--batch", "4", "--json", "r.json"]
    program = (
        f"import runpy, sys; sys.argv = ['gpu.py', *sys.argv[1:]]\n"
        f"runpy.run_path({str(BENCHMARKS / 'gpu.py')!r}, run_name='__main__')\n"
    )
    done = run_bare(program, *arguments, "--spaces", "mobilenet-tiny", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "next: python benchmarks/gpu.py --table r.json" in done.stderr
    report = read_report(tmp_path / "r.json")
    assert report.complete
    assert {peak.precision for peak in report.peaks} >= {"fp32"}
    # The first network is measured in every way, and each row holds a rate or why there is none.
    assert [rate.way for rate in report.rates[:3]] == ["plain loop", "plain loop on tensors", "ours"]
    assert all((rate.images_per_second is None) == (rate.problem is not None) for rate in report.rates)
    assert report.rates[2].graphs
    assert report.training is not None
    assert report.training.images >= 0
    assert json.loads((tmp_path / "r.json").read_text())["batch"] == 4
