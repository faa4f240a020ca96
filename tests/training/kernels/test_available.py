"""Where the kernels are not to be had: a reason in one line, and training goes on with torch's."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs.federation import micro_recipe
from helpers.runs.simulation import micro_entries
from helpers.runs.tuning import GivenMachine

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.config.execution import ExecutionConfig, Kernels, PrecisionChoice
from fedpareto.training.engines.simulation.bench import WALL_TIME, Stopwatch
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.engines.simulation.tuning import TunedProfile, choose_profile
from fedpareto.training.execution.machine import THIS_MACHINE, Machine
from fedpareto.training.execution.profile import Profile, check_possible
from fedpareto.training.kernels import available
from fedpareto.training.messages import Task

_CPU = torch.device("cpu")
_INSTALLED = importlib.util.find_spec("numba") is not None
_MISSING = "numba is not installed; install it with: pip install 'fedpareto[fast]'"
needs_numba = pytest.mark.skipif(not _INSTALLED, reason="the extra fast is not installed")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of kept profiles with nothing in it yet."""
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path))


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without numba."""
    monkeypatch.setitem(sys.modules, "numba", None)
    available.unavailable.cache_clear()
    yield
    available.unavailable.cache_clear()


def _choose(
    stopwatch: Stopwatch = WALL_TIME,
    machine: Machine = THIS_MACHINE,
    config: ExecutionConfig | None = None,
    precision: PrecisionChoice = "fp32",
) -> tuple[TunedProfile, list[str]]:
    remarks: list[str] = []
    given = (config or ExecutionConfig(), micro_recipe(), micro_entries(), _CPU)
    choice = choose_profile(precision, *given, ProgressListener(remark=remarks.append), stopwatch, machine)
    return choice, remarks


@pytest.mark.usefixtures("folder")
def test_without_numba_torch_trains_and_a_line_says_so(missing: None) -> None:
    choice, remarks = _choose()
    assert choice.profile.kernels == "torch"
    assert remarks == [f"clients train without numba's kernels: {_MISSING}"]


def test_kernels_that_are_asked_for_are_refused_without_numba(missing: None) -> None:
    with pytest.raises(UserError) as caught:
        check_possible(_CPU, "fp32", ExecutionConfig(kernels="numba"))
    assert str(caught.value) == (
        f"execution.kernels numba is not possible: {_MISSING}; or say --execution.kernels torch"
    )


def test_a_numba_that_cannot_compile_is_a_reason_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> str | None:
        raise RuntimeError("no target\nand a long story")

    monkeypatch.setattr(available, "_try", failing)
    monkeypatch.setitem(sys.modules, "numba", sys)
    available.unavailable.cache_clear()
    assert available.unavailable() == "numba cannot compile them here (no target)"
    available.unavailable.cache_clear()


@pytest.mark.parametrize("failure", [ImportError, OSError, ValueError])
def test_a_numba_that_cannot_be_imported_is_a_reason_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    (tmp_path / "numba.py").write_text(f"raise {failure.__name__}('needs another numpy\\nand more')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    available.unavailable.cache_clear()
    reason = available.unavailable()
    available.unavailable.cache_clear()
    assert reason == "numba cannot be imported here (needs another numpy)"


@pytest.mark.parametrize(
    ("device", "precision", "config", "message"),
    [
        (
            "cuda:0", "fp32", {},
            "execution.kernels numba is for CPUs and the device is cuda:0; say --execution.kernels torch",
        ),
        (
            "cpu", "bf16", {},
            "execution.kernels numba computes in fp32; say --precision fp32, or --execution.kernels torch",
        ),
        (
            "cpu", "fp32", {"memory_format": "contiguous"},
            "execution.kernels numba needs channels_last; leave execution.memory_format out",
        ),
        (
            "cpu", "fp32", {"compiled": True},
            "execution.kernels numba and execution.compiled exclude each other; choose one",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_with_the_kernels_is_refused(
    device: str, precision: PrecisionChoice, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_possible(torch.device(device), precision, ExecutionConfig(kernels="numba", **config), GivenMachine())
    assert str(caught.value) == message


def test_a_profile_computes_with_the_kernels_in_fp32_only() -> None:
    assert str(Profile(kernels="numba")).startswith("channels-last fp32 numba's kernels, 1 client at a time")
    with pytest.raises(UserError, match=r"^execution\.kernels numba computes in fp32"):
        Profile("bf16", kernels="numba")


# Measured like any other setting.


class Told(Stopwatch):
    """Says how many times faster than torch the kernels are, and remembers what was measured."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.seen: list[Profile] = []

    def seconds(self, engine: InProcessEngine, tasks: Sequence[Task]) -> float:
        profile = engine._profile
        self.seen.append(profile)
        return 0.01 / (self.factor if profile.kernels == "numba" else 2.0 if profile.precision == "bf16" else 1.0)


@needs_numba
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("factor", "expected"), [(3.0, ("fp32", "numba")), (1.5, ("bf16", "torch"))])
def test_the_kernels_are_taken_if_they_beat_every_precision(factor: float, expected: tuple[str, str]) -> None:
    choice, _ = _choose(Told(factor), GivenMachine(), precision="auto")
    assert (choice.profile.precision, choice.profile.kernels) == expected


@needs_numba
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("config", [{"kernels": "torch"}, {"memory_format": "contiguous"}, {"compiled": True}])
def test_the_kernels_are_not_measured_where_they_do_not_go(config: dict[str, Any]) -> None:
    told = Told(3.0)
    _choose(told, GivenMachine(), ExecutionConfig(**config))
    assert told.seen
    assert {profile.kernels for profile in told.seen} == {"torch"}


@needs_numba
@pytest.mark.usefixtures("folder")
def test_a_kept_choice_of_kernels_that_are_gone_is_measured_anew() -> None:
    told = Told(3.0)
    assert _choose(told, GivenMachine())[0].profile.kernels == "numba"
    assert _choose(told, GivenMachine())[0].reason.endswith(".json")
    choice, remarks = _choose(told, GivenMachine(lacking="gone"))
    assert choice.profile.kernels == "torch"
    assert remarks == ["clients train without numba's kernels: gone"]


@needs_numba
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kernels", [None, "numba"])
@pytest.mark.parametrize(("why", "often"), [(None, "once on this machine"), ("read-only", "at every start: read-only")])
def test_compiling_is_said_before_it_begins(kernels: Kernels | None, why: str | None, often: str) -> None:
    machine = GivenMachine(compiling=True, forgetting=why)
    _, remarks = _choose(Told(3.0), machine, ExecutionConfig(kernels=kernels))
    assert remarks == [f"compiling numba's kernels, which takes about 20 seconds, {often}"]


# Compiled once and kept: real processes, as what numba keeps is decided when its functions are defined.

_ASK = """
import json, time
from fedpareto.training.kernels.available import unavailable
reason = unavailable()
from fedpareto.training.kernels import depthwise
hits = 0 if reason else sum(depthwise.forward.stats.cache_hits.values())
print(json.dumps([reason, hits]))
"""


def _ask(folder: Path, program: str = _ASK, /, **environment: str) -> "subprocess.Popen[str]":
    given = {**os.environ, "FEDPARETO_CACHE_DIR": str(folder), **environment}
    return subprocess.Popen([sys.executable, "-c", program], env=given, stdout=subprocess.PIPE, text=True)


def _answer(process: "subprocess.Popen[str]") -> tuple[str | None, int]:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    reason, hits = json.loads(out)
    return reason, hits


@needs_numba
@pytest.mark.slow
def test_kernels_are_compiled_once_by_two_processes_at_once_and_after_damage(tmp_path: Path) -> None:
    assert [_answer(process)[0] for process in [_ask(tmp_path), _ask(tmp_path)]] == [None, None]
    assert _answer(_ask(tmp_path)) == (None, 1)
    for path in tmp_path.rglob("*.nb*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert _answer(_ask(tmp_path))[0] is None
    assert _answer(_ask(tmp_path)) == (None, 1)


@needs_numba
@pytest.mark.slow
def test_kernels_are_compiled_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert _answer(_ask(tmp_path / "file")) == (None, 0)


_FULL = """
import errno
from numba.core.caching import IndexDataCacheFile
def full(*arguments): raise OSError(errno.ENOSPC, "No space left on device")
IndexDataCacheFile.save = full
"""


@needs_numba
@pytest.mark.slow
def test_kernels_are_compiled_where_the_disk_is_full(tmp_path: Path) -> None:
    assert _answer(_ask(tmp_path, _FULL + _ASK)) == (None, 0)


@needs_numba
@pytest.mark.slow
def test_a_numba_that_does_not_compile_is_told_of() -> None:
    reason, _ = _answer(_ask(Path(os.environ["FEDPARETO_CACHE_DIR"]), NUMBA_DISABLE_JIT="1"))
    assert reason is not None
    assert reason.startswith("numba cannot compile them here (")
