"""Many devices in one call."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import check_refused, run_main
from helpers.networks.latency import random_times, write_table
from helpers.networks.spaces import SMALL, listed

from fedpareto.cache.costs.cost import memory_cost, size_cost
from fedpareto.cache.costs.limits import Limits
from fedpareto.search.cli import main
from fedpareto.search.query.answering import Refused, SearchOutcome, answer_targets
from fedpareto.search.query.budgets import Budgets, limits_of
from fedpareto.search.query.subject import SearchTarget
from fedpareto.search.query.target_workers import answered_by, workers_for
from fedpareto.search.query.targets import read_targets
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.space_file import space_to_mapping


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(space_to_mapping(SMALL)))
    return path


def _targets(folder: Path, text: str) -> Path:
    path = folder / "targets.yaml"
    path.write_text(text)
    return path


def test_every_target_has_the_best_network_within_its_own_limits(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "table.json", random_times(SMALL))
    path = _targets(
        tmp_path,
        f"""
        phone: {{flops-budget: 100K, params_budget: 10K}}
        board: {{latency_budget: 4ms, latency_table: {table}}}
        sensor: {{size_budget: 40kB, precision: int8, memory_budget: 9000}}
        gateway: {{min_fitness: 110.5}}
        """,
    )
    outcome = run_main(main, capsys, "--space", space, "--targets", path, "--json")
    assert outcome.code == 0, outcome.err
    reports: dict[str, dict[str, Any]] = json.loads(outcome.out)
    targets = read_targets(path)
    assert list(reports) == ["phone", "board", "sensor", "gateway"]
    for name in ("phone", "board", "sensor"):
        limits = limits_of(targets[name], SMALL)
        assert reports[name]["fitness"] == pytest.approx(listed(SMALL).best(limits), rel=1e-12)
        assert reports[name]["certified"] is True
        assert all(slack >= 0 for slack in reports[name]["slack"].values())
    scores = listed(SMALL).scores
    assert reports["gateway"]["macs"] == scores.macs[scores.feasible & (scores.fitness >= 110.5)].min()
    lines = run_main(main, capsys, "--space", space, "--targets", path).out.splitlines()
    for name, report in reports.items():
        (row,) = [line for line in lines if f" {name} " in line]
        assert format_quantity(report["macs"]) in row
    assert lines[-1].startswith("4 of 4 targets answered; ")


def test_a_target_without_a_network_does_not_stop_the_others(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _targets(tmp_path, "tiny: {flops_budget: 1K}\nphone: {flops_budget: 100K}\nboard: {params_budget: 10}\n")
    outcome = run_main(main, capsys, "--space", space, "--targets", path, "--json", "--output", tmp_path / "found")
    assert outcome.code == 2
    reports = json.loads(outcome.out)
    assert reports["phone"]["macs"] <= 100_000
    assert "the smallest has" in reports["tiny"]["refused"]
    assert "error: no answer for 2 of 3 targets: tiny: no network of small has at most 1,000 MACs" in outcome.err
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["phone"]
    assert "no network" in run_main(main, capsys, "--space", space, "--targets", path).out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold a mapping of fields"),
        ("{}", "holds no target; write one like phone"),
        ("[1, 2]", "must hold a mapping of fields"),
        ("a: 60M", "targets.yaml: a must hold a mapping of budgets, such as flops_budget: 60M"),
        ("a: {}", "targets.yaml: a: give a limit"),
        ("a: {flops: 60M}", "there is no field 'flops'"),
        ("a: {flops_budget: 60X}", "targets.yaml: a: cannot read '60X' as a number"),
        ("a: {flops_budget: [60M]}", "flops_budget"),
        ("a: {size_budget: 4 lightyears}", "cannot read '4 lightyears' as a size"),
        ("a: {flops_budget: 60M, precision: fp64}", "precision"),
        ("a: {memory_budget: 1MB, batch: 0}", "batch is 0; it must be at least 1"),
        ("a: {latency_budget: 5ms}", "--latency-table go together"),
        ("../a: {flops_budget: 60M}", "'.', '_' and '-'"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run_main(main, capsys, "--space", "mobilenet-tiny", "--targets", _targets(tmp_path, text))
    assert words in check_refused(outcome, "search-subnet")


def test_budgets_on_the_line_do_not_go_with_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _targets(tmp_path, "a: {flops_budget: 1M}")
    for option in (("--flops-budget", "1M"), ("--plot", "x.png"), ("--report", "x.html"), ("--min-fitness", "3")):
        outcome = run_main(main, capsys, "--space", "mobilenet-tiny", "--targets", path, *option)
        assert f"{option[0]} does not go with --targets" in check_refused(outcome, "search-subnet")


def test_numbers_are_as_good_as_text(tmp_path: Path) -> None:
    path = _targets(tmp_path, "a: {flops_budget: 60000000, size_budget: 2.0e+6}")
    assert limits_of(read_targets(path)["a"], SMALL).macs == 60_000_000
    assert limits_of(read_targets(path)["a"], SMALL).extras[0].limit == 2_000_000


def test_sizes_and_memories_are_limits_with_their_precision_and_batch() -> None:
    budgets = Budgets(size_budget="40kB", memory_budget="1MiB", precision="int8", batch=4)
    size, memory = limits_of(budgets, SMALL).extras
    genes = listed(SMALL).genes
    assert (size.of(SMALL, genes) == size_cost(SMALL, "int8").of(SMALL, genes)).all()
    assert (memory.of(SMALL, genes) == memory_cost(SMALL, 4).of(SMALL, genes)).all()
    assert (size.limit, memory.limit) == (40_000, 2**20)
    assert limits_of(budgets, SMALL).words() == "at most 40 kB size and at most 1.05 MB memory"
    assert listed(SMALL).within(Limits(extras=(memory,))).any()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.yaml"):
        read_targets(tmp_path / "nowhere.yaml")


_MANY = """
phone: {flops_budget: 100K, params_budget: 10K}
tiny: {flops_budget: 1K}
sensor: {size_budget: 40kB, precision: int8, memory_budget: 9000}
board: {params_budget: 10}
gateway: {min_fitness: 110.5}
watch: {params_budget: 9K}
lost: {latency_budget: 5ms, latency_table: nowhere.json}
"""


def test_several_processes_give_the_answers_of_one_in_the_order_of_the_file(tmp_path: Path) -> None:
    subject, targets = SearchTarget(SMALL, SMALL.fitness), read_targets(_targets(tmp_path, _MANY))
    remarks: list[str] = []
    reports: list[tuple[str, int, int]] = []
    listener = ProgressListener(lambda *progress: reports.append(progress), remarks.append)
    alone, together = (answer_targets(subject, targets, 0, listener, cores) for cores in (1, 3))
    assert list(together) == list(alone) == list(targets)
    assert [_figures(each) for each in together.values()] == [_figures(each) for each in alone.values()]
    assert isinstance(together["lost"], Refused)
    assert remarks == []
    assert reports[len(reports) // 2 :] == reports[: len(reports) // 2]
    assert not multiprocessing.active_children()


def _figures(answer: SearchOutcome | Refused) -> object:
    if isinstance(answer, Refused):
        return answer.reason
    return {name: value for name, value in answer.report.items() if name != "search_seconds"}


def test_processes_are_for_targets_that_take_a_search_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = {f"a{n}": Budgets(flops_budget="60M") for n in range(30)} | {"b": Budgets(min_fitness=3.0)}
    searched = {f"c{n}": Budgets(flops_budget="60M", params_budget="2M") for n in range(20)}
    assert workers_for(at_once, 8) == 1
    assert workers_for(at_once | searched, 8) == 8
    assert workers_for(searched, 1) == 1
    assert workers_for(dict(list(searched.items())[:2]), 8) == 1
    monkeypatch.setattr("fedpareto.search.query.target_workers._can_fork", lambda: False)
    assert workers_for(dict(list(searched.items())[:9]), 8) == 1
    assert workers_for(searched, 8) == 8


def _interrupted(budgets: Budgets) -> str:
    if budgets.min_fitness is None:
        time.sleep(600)
    raise KeyboardInterrupt


def test_no_process_is_left_of_targets_that_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # Copies of a process that has loaded torch: these compute nothing.
    monkeypatch.setattr("fedpareto.search.query.target_workers._can_fork", lambda: True)
    targets = {"a": Budgets(min_fitness=1.0), **{name: Budgets(flops_budget="1M") for name in ("b", "c", "d")}}
    with pytest.raises(KeyboardInterrupt):
        dict(answered_by(_interrupted, targets, 2))
    assert not multiprocessing.active_children()


def _ended_from_outside(budgets: Budgets) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return str(budgets)


def test_a_process_that_is_ended_from_outside_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedpareto.search.query.target_workers._can_fork", lambda: True)
    with pytest.raises(UserError, match="ended from outside; is there enough memory"):
        dict(answered_by(_ended_from_outside, {"a": Budgets(), "b": Budgets()}, 2))
