"""The benchmark of a GPU, on the CPU: its parts, and all of it where nothing but torch and its wheels is installed."""

import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path

import gpu
import gpu_rates
import pytest
import torch
from gpu_rates import PLAIN, Bench, Manner, Network, fastest, measured, plan, profile_of
from gpu_report import Accuracy, Peak, Point, Rate, Report, Training, read_report, write_report
from gpu_study import read_contest
from gpu_tables import compute_remarks, markdown, rate_row
from helpers.bare_machine import BENCHMARKS, run_bare
from helpers.images.mosaics import write_mosaic
from helpers.runs.federation import MICRO
from helpers.runs.simulation import micro_entries
from local_training import Pass
from reruns import Rerun
from roofline import share_of_peak
from time_share import Cut, Until, cut_after

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.execution.profile import Profile

_CPU = torch.device("cpu")
_GPU = torch.device("cuda:0")

_RATE = Rate("mobilenet-cifar", "middle", 60_000_000, "ours", "bf16", "channels_last", True, 4, "deterministic", 1234.5)
_TRAINING = Training("best", 0, "bf16", 20, 8, 7, 1_000_000, 100, 2.0, 0.01, 5000)
_REPORT = Report(
    machine=("a card", "versions"),
    minutes=8.0,
    batch=64,
    peaks=(Peak("bf16", 7.2e14),),
    rates=(dataclasses.replace(_RATE, ratio=5.5), dataclasses.replace(_RATE, images_per_second=None, problem="a | b")),
    study="three",
    budgets=(25_000_000, 60_000_000),
    trainings=(
        dataclasses.replace(
            _TRAINING,
            curve=(Point(3, 1.5, 400_000, 0.25),),
            accuracies=(Accuracy(25_000_000, 24_999_999, 0.5), Accuracy(60_000_000, 59_999_999, 0.625)),
        ),
        dataclasses.replace(_TRAINING, label="other", compute=995_000),
        dataclasses.replace(_TRAINING, label="late", compute=600_000, problem="too | few"),
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
    assert "| best | 7 | 1M | 100.0% | 2 | 50 | 1.0% | 50.0% | 62.5% |" in text.splitlines()
    assert "| other | 7 | 995K | 99.5% | 2 | 50 | 1.0% | – | – |" in text.splitlines()
    assert "| late | 7 | 600K | 60.0% | 2 | 50 | 1.0% | too / few | – |" in text.splitlines()
    assert "| best | 3 | 2 s | 400K | 25.0% |" in text.splitlines()
    assert "(24,999,999, 59,999,999 MACs)" in text
    assert "8 of 20 clients a round, accuracy on 5,000 test images; clients train bf16" in text
    assert "bf16 720.00 TFLOP/s" in text
    assert "complete" in text


@pytest.mark.parametrize("text", ["{", "[]", '{"machine": 3}', '{"format": 1}'])
def test_what_is_no_report_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read_report(tmp_path / "r.json")
    assert "\n" not in str(caught.value)


def test_a_method_that_did_not_get_the_compute_of_the_first_is_told_of() -> None:
    (remark,) = compute_remarks(_REPORT.trainings)
    assert remark.startswith("Not comparable: late with seed 0 trained 600K client MACs, 40.0% less than the 1M")
    assert remark in markdown(_REPORT)
    assert compute_remarks(()) == []


def test_the_report_of_another_version_is_refused_whatever_its_fields_are(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"format": 1, "training": {"profile": "bf16"}}')
    with pytest.raises(UserError, match=r"has format 1; this version reads 2: run benchmarks/gpu\.py again$"):
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
def generation(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes torch say that the card is of some generation; the eighth is the first with bf16 and tf32."""
    return lambda major: monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))


def test_the_most_telling_rows_come_first_and_none_twice(generation: Callable[[int], None]) -> None:
    generation(8)
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


def test_a_card_without_bf16_is_measured_in_fp32(generation: Callable[[int], None]) -> None:
    generation(7)
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


@pytest.mark.slow
def test_it_starts_where_only_torch_and_the_listed_wheels_are_installed(tmp_path: Path) -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("gpu*.py"))
    program = (
        f"import {', '.join(names)}\n"
        "from gpu_rates import networks_of\n"
        "from fedpareto.supernet.space_file import load_space\n"
        "print([network.size for network in networks_of(load_space('mobilenet-tiny'))])\n"
        "print([trial.label for trial in gpu_study.read_contest(gpu.STUDY).trials])\n"
    )
    done = run_bare(program, folder=tmp_path)
    assert (done.stdout, done.stderr) == (
        "['largest', 'middle', 'smallest']\n['fedpareto', 'deepfednas', 'superfednas']\n",
        "",
    )


@pytest.mark.slow
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
    study = gpu.STUDY.read_text().replace("[25M, 60M, 150M]", "[2M, 4M]").replace("-cifar\n", "-tiny\n")
    (tmp_path / "study.yaml").write_text(study)
    done = run_bare(program, *arguments, "--spaces", "mobilenet-tiny", "--study", "study.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "next: python benchmarks/gpu.py --table r.json" in done.stderr
    report = read_report(tmp_path / "r.json")
    assert report.complete
    assert {peak.precision for peak in report.peaks} >= {"fp32"}
    # The first network is measured in every way, and each row holds a rate or why there is none.
    assert [rate.way for rate in report.rates[:3]] == ["plain loop", "plain loop on tensors", "ours"]
    assert all((rate.images_per_second is None) == (rate.problem is not None) for rate in report.rates)
    assert report.rates[2].graphs
    assert (report.study, report.budgets, report.batch) == ("gpu-eight-minutes", (2_000_000, 4_000_000), 4)
    labels = [trial.label for trial in read_contest(tmp_path / "study.yaml").trials]
    assert report.trainings
    assert [training.label for training in report.trainings] == labels[: len(report.trainings)]
    # However fast the machine is: what has other compute than the first is told of.
    first = report.trainings[0].compute
    for training in report.trainings if first else ():
        told = any(training.label in remark for remark in compute_remarks(report.trainings))
        assert told == (abs(training.compute / first - 1) > 0.01)
