import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks.latency import random_times, write_table
from helpers.networks.spaces import SMALL, SMALL_RESNET, VAST, listed
from helpers.processes import PATIENCE
from helpers.repository import IMPORTED_FROM
from helpers.runs.federation import MICRO, finished_run, write_micro
from helpers.runs.search_command import Searching

from fedpareto.cache.costs.latency.cost import read_latency
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.fitness.score import score
from fedpareto.search.subnet import load_subnet, read_subnet_info
from fedpareto.supernet.architecture import architecture_from_json
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.genes import encode
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space, space_to_mapping
from fedpareto.training.data.batches import plain_batches
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.sources import load_images
from fedpareto.training.runs.folder import read_space

#: A search within the time that follows.
_TIMED = ("--space", "mobilenet-tiny", "--latency-table", "nowhere.json", "--latency-budget")


def _write(folder: Path, space: SearchSpace) -> Path:
    path = folder / f"{space.name}.yaml"
    path.write_text(json.dumps(space_to_mapping(space)))
    return path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Searching:
    return Searching(capsys, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits, long enough to be better than chance."""
    # The largest network in every round: so few rounds do not grow to it.
    return finished_run(tmp_path_factory.mktemp("run"), rounds=12, method="deepfednas")


def test_a_space_is_searched_without_a_run(command: Searching) -> None:
    space, _ = write_micro(command.folder)
    report = command.json("--space", space, "--flops-budget", "100K", "--params-budget", "0.01M")
    assert report["macs"] <= 100_000
    assert report["params"] <= 10_000
    assert report["limits"] == {"macs": 100_000, "params": 10_000}
    assert report["slack"] == {"macs": 100_000 - report["macs"], "params": 10_000 - report["params"]}
    everything = listed(MICRO)
    best = everything.best(Limits(macs=100_000, params=10_000))
    assert report["certified"] is True
    assert report["solver"] == "exact"
    assert report["fitness"] == pytest.approx(best, rel=1e-12)
    assert "validation_accuracy" not in report


def test_the_next_better_network_is_reported_with_its_gap(command: Searching) -> None:
    space, _ = write_micro(command.folder)
    scores = listed(MICRO).scores
    for budget in (50_000, 80_000, 100_000):
        report = command.json("--space", space, "--flops-budget", budget)
        better = report["next_better"]
        above = scores.feasible & (scores.fitness > report["fitness"] * (1 + 1e-10))
        assert set(better) == {"macs", "params", "fitness", "gap"}
        assert better["macs"] == scores.macs[above].min() > budget
        assert better["gap"] == better["fitness"] - report["fitness"] > 0
        least = above & (scores.macs == better["macs"])
        assert better["fitness"] == pytest.approx(scores.fitness[least].max(), rel=1e-12)
        assert better["params"] in scores.params[least]


def test_nothing_is_better_than_the_best_of_a_space(command: Searching) -> None:
    space, _ = write_micro(command.folder)
    report = command.json("--space", space, "--flops-budget", "1G")
    assert report["next_better"] is None
    assert report["fitness"] == pytest.approx(listed(MICRO).best(Limits()), rel=1e-12)


def test_a_resnet_space_is_searched_with_all_limits(command: Searching) -> None:
    space = _write(command.folder, SMALL_RESNET)
    table = write_table(command.folder / "table.json", random_times(SMALL_RESNET))
    report = command.json(
        *("--space", space, "--flops-budget", "2M", "--params-budget", "50K"),
        *("--latency-budget", "3ms", "--latency-table", table),
    )
    latency = read_latency(table, SMALL_RESNET, 3.0)
    limits = Limits(macs=2_000_000, params=50_000, extras=(latency,))
    within = listed(SMALL_RESNET).within(limits)
    assert 0 < within.sum() < len(within)
    assert report["fitness"] == pytest.approx(listed(SMALL_RESNET).best(limits), rel=1e-12)
    assert report["certified"] is True
    genes = encode(SMALL_RESNET, architecture_from_json(report["architecture"]))[None]
    assert report["latency"] == pytest.approx(latency.of(SMALL_RESNET, genes)[0])
    assert report["limits"] == {"macs": 2_000_000, "params": 50_000, "latency": 3.0}
    assert report["slack"]["latency"] == 3.0 - report["latency"] >= 0


@pytest.mark.parametrize("budget", ["2.5ms", "0.0025s", "2500us", "2500µs"])
def test_latency_budgets_are_equal_in_every_unit(command: Searching, budget: str) -> None:
    space, table = _write(command.folder, SMALL), write_table(command.folder / "t.json", random_times(SMALL))
    report = command.json("--space", space, "--latency-budget", budget, "--latency-table", table)
    assert report["limits"] == {"latency": pytest.approx(2.5, rel=1e-15)}
    assert report["latency"] <= 2.5
    best = listed(SMALL).best(Limits(extras=(read_latency(table, SMALL, 2.5),)))
    assert report["fitness"] == pytest.approx(best, rel=1e-12)


def test_a_table_for_people_says_how_good_the_answer_is(command: Searching) -> None:
    space, table = _write(command.folder, SMALL), write_table(command.folder / "t.json", random_times(SMALL))
    limits = ("--flops-budget", "100K", "--latency-budget", "4ms", "--latency-table", table)
    report, outcome = command.json("--space", space, *limits), command("--space", space, *limits)
    better = report["next_better"]
    assert "the fittest subnet of small within the limits" in outcome.out
    assert f"{report['latency']:.3g} ms" in outcome.out
    assert outcome.out.splitlines()[-2] == (
        "certified: no network within the limits has a higher fitness; the next better one takes "
        f"{better['macs']:,} MACs and {better['params']:,} parameters for {better['gap']:.3f} more"
    )
    assert json.loads(outcome.out.splitlines()[-1]) == report["architecture"]
    assert outcome.err.endswith(f"next: train-supernet --space {space}\n")
    top = command("--space", space, "--flops-budget", "1G").out.splitlines()[-2]
    assert top == "certified: no network within the limits has a higher fitness; no network of the space is fitter"


def test_the_cheapest_network_of_a_fitness_is_found(command: Searching) -> None:
    space, scores = _write(command.folder, SMALL), listed(SMALL).scores
    for params in (None, 9_000):
        extra = () if params is None else ("--params-budget", params)
        report = command.json("--space", space, "--min-fitness", "110.5", *extra)
        within = listed(SMALL).within(Limits(params=params)) & (scores.fitness >= 110.5)
        assert report["macs"] == scores.macs[within].min()
        assert report["fitness"] >= 110.5
        assert report["limits"]["min_fitness"] == 110.5
        assert report["certified"] is True
    outcome = command("--space", space, "--min-fitness", "110.5")
    assert "certified: no network within the limits reaches that fitness with fewer MACs; the next" in outcome.out


def test_a_fitness_beyond_the_budget_names_both_and_the_nearest_network(command: Searching) -> None:
    space, scores = _write(command.folder, SMALL), listed(SMALL).scores
    cheapest = scores.macs[scores.feasible & (scores.fitness >= 150)].min()
    error = command.error("--space", space, "--min-fitness", "150", "--flops-budget", "60K")
    assert f"fitness 150 takes at least {cheapest:,} MACs" in error
    assert "more than the 60,000 allowed" in error
    nearest = encode(SMALL, architecture_from_json(json.loads(error[error.index("{") :])))
    assert score(SMALL, nearest).macs[0] == cheapest


def test_limits_that_contradict_each_other_are_one_line_with_the_nearest_network(command: Searching) -> None:
    space, table = _write(command.folder, SMALL), write_table(command.folder / "t.json", random_times(SMALL))
    error = command.error(
        *("--space", space, "--flops-budget", "48K", "--latency-budget", "2.1ms", "--latency-table", table)
    )
    cost = read_latency(table, SMALL)
    within = listed(SMALL).within(Limits(macs=48_000))
    least = cost.of(SMALL, listed(SMALL).genes)[within].min()
    assert "no network of small has at most 48K MACs and at most 2.1 ms latency and effectiveness ρ ≤ 1" in error
    assert f"; the limit on latency binds: the nearest network has {least:.6g} ms, {{" in error
    nearest = encode(SMALL, architecture_from_json(json.loads(error[error.index("{") :])))[None]
    assert cost.of(SMALL, nearest)[0] == pytest.approx(least)
    assert score(SMALL, nearest).macs[0] <= 48_000


def test_a_bad_latency_table_is_refused(command: Searching) -> None:
    space, times, path = _write(command.folder, SMALL), random_times(SMALL), command.folder / "t.json"
    first = sorted(times)[0]
    count = len(times)
    cases = {
        f"lacks {count - 1} of the {count} blocks of small, such as ": {first: 1.0},
        f"the time of {first!r} is -1.0; it must be": times | {first: -1.0},
        "is not valid JSON: NaN is no number of JSON": times | {first: float("nan")},
        f"the time of {first!r} is 'fast'; it must be": times | {first: "fast"},
        "blocks is None; it must be an object": None,
    }
    for words, blocks in cases.items():
        write_table(path, blocks)
        assert words in command.error("--space", space, "--latency-budget", "5ms", "--latency-table", path)
    for content, words in (("{", "not valid JSON"), ("{}", "not a latency table"), ("\x00", "not valid JSON")):
        path.write_text(content)
        assert words in command.error("--space", space, "--latency-budget", "5ms", "--latency-table", path)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_plot_is_drawn(command: Searching, suffix: str) -> None:
    path = command.folder / f"search{suffix}"
    assert command("--space", _write(command.folder, SMALL), "--flops-budget", "100K", "--plot", path).code == 0
    assert path.read_bytes().startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
    assert path.stat().st_size > 5000


def test_a_plot_shows_the_frontier_a_cache_and_the_choice_and_waits_for_no_genetic_search(command: Searching) -> None:
    path = command.folder / "search.svg"
    space = _write(command.folder, SMALL)
    report = command.json("--space", space, "--flops-budget", "100K", "--plot", path)
    texts = re.findall("<!-- (.*) -->", path.read_text())
    points = len(load_or_compute_frontier(SMALL, SMALL.fitness).macs)
    assert "Fitness over MACs in small" in texts
    assert f"exact frontier ({points} networks)" in texts
    assert not [text for text in texts if "NSGA-II" in text]
    assert f"cache ({min(points, 60)} entries)" in texts
    assert "budget 100K" in texts
    assert f"chosen: {format_quantity(report['macs'])} MACs, fitness {report['fitness']:.1f}" in texts


def test_the_plot_of_a_run_shows_the_entries_of_its_cache(command: Searching, run: Path) -> None:
    path = command.folder / "search.svg"
    assert command("--run", run, "--flops-budget", "1M", "--plot", path).code == 0
    entries = len((run / "cache.jsonl").read_text().splitlines()) - 1
    assert entries < len(load_or_compute_frontier(read_space(run), MICRO.fitness).macs)
    assert f"<!-- cache ({entries} entries) -->" in path.read_text()


def test_a_plot_that_cannot_be_drawn_is_refused_before_the_search(
    command: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = command.folder / "kept"
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(kept))
    (command.folder / "taken.svg").write_text("mine")
    search = ("--space", _write(command.folder, SMALL), "--flops-budget", "100K", "--plot")
    assert "taken.svg exists; " in command.error(*search, command.folder / "taken.svg")
    assert "allowed suffixes: .png, .svg, .pdf" in command.error(*search, command.folder / "front.jpg")
    assert "allowed suffixes: .png, .svg, .pdf" in command.error(*search, command.folder / "front")
    assert not kept.exists()


#: Runs a search and prints, after its report, which of some slow libraries it imported.
_SEARCH = """
import sys
import fedpareto.search.cli
try:
    fedpareto.search.cli.main(sys.argv[1:])
except SystemExit as end:
    slow = ("torch", "pymoo", "scipy", "matplotlib", "pandas")
    print([name for name in slow if name in sys.modules])
    raise
"""


def _search_elsewhere(folder: Path, *arguments: object) -> tuple[dict[str, Any], list[str], str]:
    """Search in a fresh process; return its report, the slow libraries it imported, and its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", _SEARCH, *map(str, arguments), "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(IMPORTED_FROM)},
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report, imported = done.stdout.splitlines()
    return json.loads(report), ast.literal_eval(imported), done.stderr


@pytest.mark.slow
def test_a_second_search_of_a_space_imports_no_slow_library_and_solves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(tmp_path / "kept"))
    arguments = ("--space", "mobilenet-tiny", "--flops-budget", "1M")
    first, imported, error = _search_elsewhere(tmp_path, *arguments)
    assert imported == []
    (kept,) = (tmp_path / "kept" / "frontiers").iterdir()
    written = kept.stat().st_mtime_ns
    second, imported, error = _search_elsewhere(tmp_path, *arguments)
    assert imported == []
    assert error == "next: train-supernet --space mobilenet-tiny\n"
    assert kept.stat().st_mtime_ns == written
    del first["search_seconds"], second["search_seconds"]
    assert second == first


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_frontier_is_made_again_with_a_remark(
    command: Searching, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(command.folder / "kept"))
    search = ("--space", "mobilenet-tiny", "--flops-budget", "1M")
    first = command.json(*search)
    (kept,) = (command.folder / "kept" / "frontiers").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"a frontier"}[damage])
    outcome = command(*search, "--json")
    assert outcome.code == 0
    assert f"the kept frontier {kept} is damaged" in outcome.err
    assert "computing it again" in outcome.err
    report = json.loads(outcome.out)
    assert {**report, "search_seconds": 0} == {**first, "search_seconds": 0}
    assert command(*search).err == "next: train-supernet --space mobilenet-tiny\n"


@pytest.mark.slow
def test_a_space_too_large_is_searched_without_a_certificate(command: Searching) -> None:
    search = ("--space", _write(command.folder, VAST), "--flops-budget", "10G")
    outcome = command(*search, "--json")
    assert outcome.code == 0
    report = json.loads(outcome.out)
    assert report["certified"] is False
    assert report["solver"] == "nsga2"
    assert report["next_better"] is None
    assert report["macs"] <= 10_000_000_000
    assert "vast is too large to be solved exactly" in outcome.err
    assert "searching with NSGA-II, without a certificate" in outcome.err
    path = command.folder / "search.svg"
    assert "found by a genetic search: good, but not certified" in command(*search, "--plot", path).out
    assert re.search(r"<!-- NSGA-II on its own \(\d+\) -->", path.read_text())
    assert "search for the highest fitness within a budget instead" in command.error(
        "--space", _write(command.folder, VAST), "--min-fitness", "100"
    )


@pytest.mark.parametrize("budget", ["100K", "0.1M", "1e5", "100000"])
def test_budgets_read_as_people_write_them(command: Searching, budget: str) -> None:
    space, _ = write_micro(command.folder)
    assert command.json("--space", space, "--flops-budget", budget)["limits"] == {"macs": 100_000}


def test_the_architecture_alone_is_written_for_a_space(command: Searching) -> None:
    space, _ = write_micro(command.folder)
    output = command.folder / "found"
    report = command.json("--space", space, "--flops-budget", "100K", "--output", output)
    assert json.loads((output / "architecture.json").read_text()) == report["architecture"]
    assert [path.name for path in output.iterdir()] == ["architecture.json"]


def test_a_trained_subnet_is_extracted_calibrated_evaluated_and_written(command: Searching, run: Path) -> None:
    output = command.folder / "subnet"
    report = command.json("--run", run, "--flops-budget", "1M", "--test", "--output", output)
    assert report["validation_accuracy"] > 0.3
    assert report["test_accuracy"] > 0.3
    network, info = load_subnet(output), read_subnet_info(output)
    test = load_images("digits", "data", "test", Preparation(8))
    with torch.inference_mode():
        hits = [(network(x).argmax(1) == y).sum() for x, y in plain_batches(test, 64, 8, info.normalisation)]
    assert sum(map(int, hits)) / len(test) == pytest.approx(report["test_accuracy"], abs=0.01)
    assert sum(parameter.numel() for parameter in network.parameters()) == report["params"]
    assert info.classes == tuple("0123456789")


def test_test_images_are_read_only_when_asked_for(command: Searching, run: Path) -> None:
    assert "test_accuracy" not in command.json("--run", run, "--flops-budget", "1M")


def test_a_table_is_printed_for_people_with_the_next_command(command: Searching, run: Path) -> None:
    outcome = command("--run", run, "--flops-budget", "1M", "--output", command.folder / "subnet")
    assert outcome.code == 0
    assert "validation accuracy" in outcome.out
    assert "1,000,000" in outcome.out
    assert f"next: search-subnet --run {run} --flops-budget 1M --export onnx --output " in outcome.err


def test_the_newest_checkpoint_can_be_asked_for(command: Searching, run: Path) -> None:
    report = command.json("--run", run, "--flops-budget", "1M", "--checkpoint", "newest")
    assert report["round"] == 12


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--space", "mobilenet-cifra", "--flops-budget", "60M"), "unknown space 'mobilenet-cifra'; valid:"),
        (("--space", "mobilenet-tiny"), "give a limit: --flops-budget 60M"),
        (("--flops-budget", "60M"), "give either --space NAME (architecture only) or --run FOLDER"),
        (("--space", "mobilenet-tiny", "--run", "x", "--flops-budget", "60M"), "give either --space"),
        (("--space", "mobilenet-tiny", "--flops-budget", "60X"), "cannot read '60X' as a number"),
        (("--space", "mobilenet-tiny", "--flops-budget", "-60M"), "'-60M' is not a positive number"),
        (("--space", "mobilenet-tiny", "--flops-budget", "0"), "'0' is not a positive number"),
        (("--space", "mobilenet-tiny", "--flops-budget", "nan"), "cannot read 'nan' as a number"),
        (("--space", "mobilenet-tiny", "--params-budget", "10"), "no network of mobilenet-tiny has at most 10 parame"),
        (("--space", "mobilenet-tiny", "--flops-budget", "1M", "--test"), "--test needs trained weights"),
        (("--space", "mobilenet-tiny", "--min-fitness", ".nan"), "--min-fitness is .nan; it must be a finite number"),
        (("--space", "mobilenet-tiny", "--min-fitness", "1e999"), "--min-fitness is 1e999; it must be a finite number"),
        (("--space", "mobilenet-tiny", "--min-fitness", "1e5"), "has a fitness of 100000; the highest is 695.1"),
        (("--space", "mobilenet-tiny", "--min-fitness", "high"), "--min-fitness is high; it must be a number"),
        (("--space", "mobilenet-tiny", "--min-fitness", "nan"), "--min-fitness is nan; it must be a number"),
        (("--space", "mobilenet-tiny", "--latency-budget", "5ms"), "--latency-table go together; give both or neither"),
        (
            ("--space", "mobilenet-tiny", "--flops-budget", "1M", "--latency-table", "t.json"),
            "--latency-table go together; give both or neither",
        ),
        ((*_TIMED, "5"), "cannot read '5' as a duration; write it like 5ms, 0.8s or 300us"),
        ((*_TIMED, "abc"), "cannot read 'abc' as a duration"),
        ((*_TIMED, "-5ms"), "'-5ms' is not a positive duration"),
        ((*_TIMED, "0ms"), "'0ms' is not a positive duration"),
        ((*_TIMED, "5ms"), "cannot read nowhere.json"),
        (("--run", "nowhere", "--flops-budget", "60M"), "nowhere holds no run"),
        (("--run", "nowhere", "--flops-budget", "60M", "--classes", "3"), "--classes goes with --space"),
        (("--space", "mobilenet-tiny", "--flops-budget", "1M", "--seed", "-1"), "seed is -1"),
        (("--space", "mobilenet-tiny", "--flops-budget", "1M", "--fitness", "no.yaml"), "cannot read no.yaml"),
    ],
)
def test_bad_options_are_refused_in_one_line(command: Searching, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in command.error(*arguments)


def test_an_unreachable_budget_names_the_smallest_network(command: Searching) -> None:
    space = load_space("mobilenet-cifar")
    error = command.error("--space", space.name, "--flops-budget", "1M")
    assert "no network of mobilenet-cifar has at most 1,000,000 MACs; the smallest has 13,072,640 (13.07M)" in error


def test_an_output_that_is_taken_is_refused_before_the_search(command: Searching, run: Path) -> None:
    output = command.folder / "taken"
    output.mkdir()
    (output / "file").write_text("mine")
    assert "is not an empty folder" in command.error("--run", run, "--flops-budget", "1M", "--output", output)


def test_an_output_that_cannot_be_written_is_refused_before_the_search(command: Searching) -> None:
    (command.folder / "file").write_text("mine")
    output = command.folder / "file" / "subnet"
    error = command.error("--space", "not-looked-at", "--flops-budget", "1M", "--output", output)
    assert f"{command.folder / 'file'} is not a folder you may write to" in error


def test_a_run_with_an_altered_cache_is_refused(command: Searching, run: Path) -> None:
    copy = command.folder / "run"
    shutil.copytree(run, copy)
    path = copy / "cache.jsonl"
    path.write_text(path.read_text().replace('"rho": 0.', '"rho": 1.'))
    assert f"{path} is damaged (its digest does not fit)" in command.error("--run", copy, "--flops-budget", "1M")
    # A run of an earlier program has no digests.
    (copy / "digests.json").unlink()
    outcome = command("--run", copy, "--flops-budget", "1M")
    assert outcome.code == 2
    assert "rho is 1." in outcome.err.splitlines()[-1]


def test_a_run_whose_checkpoint_is_cut_short_is_refused(command: Searching, run: Path) -> None:
    copy = command.folder / "run"
    shutil.copytree(run, copy)
    for path in copy.glob("checkpoints/*/supernet.safetensors"):
        path.write_bytes(path.read_bytes()[:1000])
    assert "is damaged (supernet.safetensors: its digest does not fit)" in command.error(
        "--run", copy, "--flops-budget", "1M"
    )
