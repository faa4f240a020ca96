import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.networks.latency import CALL_MS, FakeClock, FakeRuntime, conditions, names_of, network_ms
from helpers.networks.spaces import SMALL_RESNET
from helpers.runs.federation import micro_space

from fedpareto.cache.costs.latency.cost import latency_cost
from fedpareto.cache.costs.latency.table import LatencyTable, LatencyTableError, read_table, write_latency_table
from fedpareto.search.profiling.profile import Bench, clock_of, partial_path, profile, started_table
from fedpareto.search.profiling.validation import validate
from fedpareto.supernet.common.terminal.progress import SILENT, ProgressListener
from fedpareto.supernet.genes import decode, random_genes
from fedpareto.supernet.space import SearchSpace

#: Some twenty blocks.
FEW = micro_space(name="small", kernels=(3,))
FEW_RESNET = dataclasses.replace(SMALL_RESNET, resolutions=(8,), width_multipliers=(0.5, 1.0))


def _bench(space: SearchSpace = FEW, drift: float = 1.0) -> Bench:
    clock = FakeClock()
    return Bench(space, FakeRuntime(clock, drift), batch=1, interval=0.02, seed=0, clock=clock, group=7)


def _groups(bench: Bench) -> list[int]:
    assert isinstance(bench.runtime, FakeRuntime)
    return bench.runtime.groups


@pytest.mark.parametrize("space", [FEW, FEW_RESNET], ids=lambda space: space.name)
@pytest.mark.parametrize("drift", [1.0, 1.1])
def test_the_sum_of_a_table_is_the_time_of_a_network(tmp_path: Path, space: SearchSpace, drift: float) -> None:
    bench = _bench(space, drift)
    table = profile(bench, tmp_path / "t.json", LatencyTable({}, conditions()), SILENT)
    genes = random_genes(space, 5, np.random.default_rng(1))
    times = [network_ms(bench.network(decode(space, vector)).module) for vector in genes]
    unit = float(np.median(table.references)) / network_ms(bench.reference().module)
    assert latency_cost(table, space).of(space, genes) / unit == pytest.approx(times, rel=1e-5)
    assert (unit > 1) == (drift > 1)


def test_blocks_are_measured_in_groups_and_each_once(tmp_path: Path) -> None:
    bench, reports = _bench(), list[tuple[str, int, int]]()
    table = profile(
        bench, tmp_path / "t.json", LatencyTable({}, conditions()), ProgressListener(lambda *call: reports.append(call))
    )
    assert sorted(table.blocks) == sorted(table.spread) == names_of(FEW)
    count = len(names_of(FEW))
    reference, *groups = _groups(bench)
    # With each group a module that does nothing.
    assert reference == 1
    assert sum(groups) - len(groups) == count
    assert max(groups) == 8
    assert reports[0] == ("measuring blocks", 0, count)
    assert reports[-1] == ("measuring blocks", count, count)
    assert len(table.references) == len(groups)
    assert read_table(tmp_path / "t.json") == table
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


class StoppedError(Exception):
    """Someone ended the process."""


def _stop_after(blocks: int) -> ProgressListener:
    def report(what: str, done: int, total: int) -> None:
        if done >= blocks:
            raise StoppedError

    return ProgressListener(report)


def test_an_interrupted_measurement_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    output = tmp_path / "t.json"
    with pytest.raises(StoppedError):
        profile(_bench(), output, LatencyTable({}, conditions()), _stop_after(8))
    assert not output.exists()
    started = started_table(output, conditions(created="later"))
    assert 8 <= len(started.blocks) < len(names_of(FEW))
    bench = _bench()
    table = profile(bench, output, started, SILENT)
    assert sum(_groups(bench)[1:]) - len(_groups(bench)[1:]) == len(names_of(FEW)) - len(started.blocks)
    assert {name: table.blocks[name] for name in started.blocks} == pytest.approx(started.blocks)
    assert table.measured == conditions()
    whole = profile(_bench(), tmp_path / "whole.json", LatencyTable({}, conditions()), SILENT)
    assert table.blocks == pytest.approx(whole.blocks)


def test_blocks_measured_on_a_slower_machine_are_not_slower(tmp_path: Path) -> None:
    output = tmp_path / "t.json"
    with pytest.raises(StoppedError):
        profile(_bench(), output, LatencyTable({}, conditions()), _stop_after(8))
    slow = _bench(drift=1.5)
    table = profile(slow, output, started_table(output, conditions()), SILENT)
    whole = profile(_bench(), tmp_path / "whole.json", LatencyTable({}, conditions()), SILENT)
    ratios = {round(table.blocks[name] / whole.blocks[name], 4) for name in whole.blocks}
    assert len(ratios) == 1
    assert ratios.pop() > 1.0


def test_nothing_is_run_where_nothing_is_missing(tmp_path: Path) -> None:
    output = tmp_path / "t.json"
    table = profile(_bench(), output, LatencyTable({}, conditions()), SILENT)
    write_latency_table(partial_path(output), table)
    output.unlink()
    bench = _bench()
    assert profile(bench, output, started_table(output, conditions()), SILENT) == table
    assert _groups(bench) == []
    assert output.exists()
    assert not partial_path(output).exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("space", "another"),
        ("machine", "another machine"),
        ("device", "a GPU"),
        ("runtime", "onnxruntime"),
        ("threads", 2),
        ("batch", 3),
        ("clock", "processor"),
        ("versions", {"torch": "2.10"}),
        ("interval", 0.05),
    ],
)
def test_other_settings_than_those_of_what_is_there_are_refused(tmp_path: Path, field: str, value: object) -> None:
    output = tmp_path / "t.json"
    write_latency_table(partial_path(output), LatencyTable({}, conditions()))
    with pytest.raises(LatencyTableError) as caught:
        started_table(output, conditions(**{field: value}))
    assert str(caught.value).startswith(f"{field}: {partial_path(output)} was measured with ")
    assert str(caught.value).endswith("wanted here; repeat the command that began it, or remove the file")


def test_a_validation_of_sums_that_are_exact_needs_no_correction(tmp_path: Path) -> None:
    bench = _bench()
    table = validate(bench, profile(bench, tmp_path / "t.json", LatencyTable({}, conditions()), SILENT), 12, SILENT)
    assert table.validation is not None
    assert table.validation.networks == 12
    assert table.validation.rank_correlation == pytest.approx(1.0)
    assert table.validation.mean_absolute_percentage_error < 0.01
    write_latency_table(tmp_path / "t.json", table)
    assert read_table(tmp_path / "t.json") == table


def test_one_thread_of_a_cpu_is_timed_by_the_processor_time_it_has() -> None:
    names = [clock_of(torch.device(device), threads)[0] for device, threads in (("cpu", 1), ("cpu", 2), ("cuda", 1))]
    assert names[1:] == ["wall", "wall"]
    assert names[0] in ("processor", "wall")


def test_a_call_is_not_counted_for_every_block(tmp_path: Path) -> None:
    table = profile(_bench(), tmp_path / "t.json", LatencyTable({}, conditions()), SILENT)
    unit = float(np.median(table.references)) / network_ms(_bench().reference().module)
    stems = [name for name in table.blocks if name.startswith("conv hswish 3>")]
    assert len(stems) == 1
    assert all(table.blocks[name] / unit > CALL_MS for name in stems)
    assert min(time for name, time in table.blocks.items() if name not in stems) / unit < CALL_MS


def test_conditions_are_those_of_the_first_measurement(tmp_path: Path) -> None:
    output = tmp_path / "t.json"
    write_latency_table(partial_path(output), LatencyTable({}, conditions()))
    later = dataclasses.replace(conditions(), created="2027")
    assert started_table(output, later).measured == conditions()
    assert started_table(tmp_path / "new.json", later) == LatencyTable({}, later)
