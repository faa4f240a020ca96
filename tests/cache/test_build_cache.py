import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.commands import Outcome, check_refused, run_main
from helpers.networks.spaces import VAST
from helpers.networks.strategies import narrow_resnet, tiny_space

from fedpareto.cache.cache_file import read_cache
from fedpareto.cache.cli import main
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.fitness.score import score
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.genes import smallest_genes
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import preset_names, space_to_mapping

FEW = ("--entries", "5")
QUICK = ("--population", "20", "--generations", "3")
SPACE = tiny_space()


class Command:
    """``build-cache`` in an empty folder, quick unless told otherwise."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys, self.folder, self.output = capsys, folder, folder / "cache.jsonl"

    def __call__(self, *arguments: object, space: object = "mobilenet-tiny") -> Outcome:
        # The exact solver has no generations.
        quick = () if "exact" in arguments else QUICK
        given = ("--space", space, "--output", self.output, *FEW, *quick, *arguments)
        return run_main(main, self.capsys, *given)

    def error(self, *arguments: object, space: object = "mobilenet-tiny") -> str:
        """Run, check that it is refused in one line without writing anything, and return the line."""
        before = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        outcome = self(*arguments, space=space)
        error = check_refused(outcome, "build-cache")
        assert {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()} == before
        return error

    def write_space(self, space: SearchSpace) -> Path:
        path = self.folder / f"{space.name}.yaml"
        path.write_text(json.dumps(space_to_mapping(space)))
        return path

    def header(self) -> dict[str, Any]:
        header: dict[str, Any] = json.loads(self.output.read_text().splitlines()[0])
        return header

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()[1:]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(capsys, tmp_path)


def test_a_cache_is_built_and_reported(command: Command) -> None:
    outcome = command()
    assert outcome.code == 0
    assert outcome.out.startswith(f"{command.output}: 5 entries from ")
    next_line = f"next: train-supernet --space mobilenet-tiny --cache {command.output}\n"
    assert outcome.err == next_line
    cache = read_cache(command.output, SPACE)
    assert len(cache.entries) == 5
    assert cache.solver_settings["population"] == 20
    assert os.listdir(command.folder) == ["cache.jsonl"]


@pytest.mark.slow
def test_the_same_seed_builds_the_same_entries(command: Command) -> None:
    built, path = [], command.write_space(VAST)
    for seed in ("3", "3", "4"):
        assert command("--seed", seed, "--overwrite", space=path).code == 0
        built.append(command.entries())
    first, same, other = built
    assert same == first
    assert other != first


def test_a_cache_is_optimal_unless_told_to_start_cold(command: Command) -> None:
    frontier = load_or_compute_frontier(SPACE, SPACE.fitness)
    optima = dict(zip(frontier.macs.tolist(), frontier.values.tolist(), strict=True))
    for solver in ((), ("--solver", "nsga2"), ("--solver", "exact")):
        outcome = command(*solver, "--overwrite")
        assert outcome.code == 0
        words = "optimality gap: 0; 5 of 5 entries have the highest fitness at their MACs, by proof"
        assert words in outcome.out.splitlines()
        assert command.header()["gaps"] == pytest.approx([0.0] * 5, abs=1e-9)
        assert command.header()["solver"] == (solver or ("", "nsga2"))[1]
        for entry in command.entries():
            assert entry["fitness"] == pytest.approx(optima[entry["macs"]], rel=1e-12)


@pytest.mark.slow
def test_a_cold_cache_says_how_far_it_stayed_behind(command: Command) -> None:
    path = command.write_space(narrow_resnet())
    outcome = command("--cold", "--entries", "60", "--population", "10", "--generations", "1", space=path)
    assert outcome.code == 0
    gaps, entries = command.header()["gaps"], command.entries()
    assert command.header()["solver_settings"]["cold"] is True
    assert len(gaps) == len(entries) == 60
    assert min(gaps) >= 0
    worst = max(range(60), key=lambda index: gaps[index] / (entries[index]["fitness"] + gaps[index]))
    share = gaps[worst] / (entries[worst]["fitness"] + gaps[worst])
    assert 0 < share < 0.01
    where = format_quantity(entries[worst]["macs"])
    optimal = sum(gap < 1e-9 for gap in gaps)
    assert optimal < 60
    assert outcome.out.splitlines()[-1] == (
        f"optimality gap: at most {share:.3%} ({gaps[worst]:.3f} at {where} MACs); "
        f"{optimal} of 60 entries have the highest fitness at their MACs, by proof"
    )
    assert read_cache(command.output, narrow_resnet()).gaps == tuple(gaps)


@pytest.mark.slow
def test_a_space_too_large_for_the_exact_solver_is_searched_with_a_remark(command: Command) -> None:
    outcome = command(space=command.write_space(VAST))
    assert outcome.code == 0
    assert "vast is too large to be solved exactly within" in outcome.err
    assert "NSGA-II starts cold" in outcome.err
    assert "optimality gap" not in outcome.out
    assert command.header()["gaps"] is None
    assert len(command.entries()) == 5


def test_a_space_too_large_for_the_solver_asked_for_offers_the_other(command: Command) -> None:
    error = command.error("--solver", "exact", space=command.write_space(VAST))
    assert "vast is too large to be solved exactly within" in error
    assert "use --solver nsga2" in error


def test_a_range_without_a_best_network_is_refused(command: Command) -> None:
    macs = load_or_compute_frontier(SPACE, SPACE.fitness).macs
    widest = int(np.argmax(np.diff(macs)))
    limits = ("--flops-min", macs[widest] + 1, "--flops-max", macs[widest + 1] - 1)
    assert "no best network of mobilenet-tiny has" in command.error("--solver", "exact", *limits)


def test_the_bound_of_a_cache_is_in_its_weights_and_holds_for_its_entries(command: Command) -> None:
    weights = command.folder / "fitness.yaml"
    weights.write_text("effectiveness_weight: 1.0\nmax_effectiveness: 1.0\ncache_max_effectiveness: 0.7\n")
    command("--fitness", weights)
    assert command.header()["fitness"]["max_effectiveness"] == 1.0
    assert command.header()["fitness"]["cache_max_effectiveness"] == 0.7
    assert max(entry["rho"] for entry in command.entries()) <= 0.7
    assert len(read_cache(command.output, SPACE).entries) == 5


def test_a_second_cache_of_a_space_reads_the_kept_frontier(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = command.folder / "kept"
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(kept))
    assert command("--solver", "exact").code == 0
    assert len(list((kept / "frontiers").iterdir())) == 1
    monkeypatch.setattr("fedpareto.cache.exact.frontier_store.exact_frontier", None)
    assert command("--solver", "exact", "--overwrite").code == 0


def test_a_frontier_that_cannot_be_kept_is_a_remark(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    (command.folder / "file").write_text("")
    monkeypatch.setenv("FEDPARETO_CACHE_DIR", str(command.folder / "file"))
    outcome = command("--solver", "exact")
    assert outcome.code == 0
    assert "the frontier is not kept (choose a folder with FEDPARETO_CACHE_DIR)" in outcome.err
    assert len(command.entries()) == 5


def test_limits_hold_for_every_entry(command: Command) -> None:
    for how in ((), ("--cold",), ("--solver", "exact")):
        assert command("--flops-min", "0.5M", "--flops-max", "2M", "--overwrite", *how).code == 0
        macs = [entry["macs"] for entry in command.entries()]
        assert len(macs) == 5
        assert 500_000 <= min(macs) <= max(macs) <= 2_000_000


def test_a_limit_beyond_every_network_changes_nothing(command: Command) -> None:
    command()
    unlimited = command.entries()
    assert command("--flops-max", "1e20", "--overwrite").code == 0
    assert command.entries() == unlimited


def test_a_front_with_fewer_networks_than_asked_says_so(command: Command) -> None:
    outcome = command("--entries", "500")
    assert outcome.code == 0
    assert re.search(r"has only \d+ architectures, not 500", outcome.out)


def test_classes_and_weights_reach_the_cache(command: Command) -> None:
    weights = command.folder / "fitness.yaml"
    weights.write_text("depth_penalty: 2.5\n")
    assert command("--classes", "7", "--fitness", weights).code == 0
    cache = read_cache(command.output, SPACE.adapted(classes=7))
    assert cache.fitness.depth_penalty == 2.5


def test_a_users_space_is_read_from_its_file(command: Command) -> None:
    path = command.folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**space_to_mapping(SPACE), "name": "mine", "kernels": [3]}))
    assert command(space=path).code == 0
    assert json.loads(command.output.read_text().splitlines()[0])["space"] == "mine"


def test_a_plot_is_drawn_beside_the_cache(command: Command) -> None:
    assert command("--plot", command.folder / "front.svg").code == 0
    drawn = (command.folder / "front.svg").read_text()
    assert drawn.startswith("<?xml")
    frontier = load_or_compute_frontier(SPACE, SPACE.fitness)
    assert f"<!-- exact frontier ({len(frontier.macs)} networks) -->" in drawn
    assert "<!-- cache (5 entries) -->" in drawn


def test_the_plot_of_a_space_too_large_shows_its_entries(command: Command) -> None:
    assert command("--plot", command.folder / "front.svg", space=command.write_space(VAST)).code == 0
    drawn = (command.folder / "front.svg").read_text()
    assert "exact frontier" not in drawn
    assert "<!-- cache (5 entries) -->" in drawn


def test_an_existing_output_is_kept_unless_overwritten(command: Command) -> None:
    command.output.write_text("precious")
    assert "exists; pass --overwrite" in command.error()
    assert command("--overwrite").code == 0
    assert len(command.entries()) == 5


def test_an_existing_plot_is_kept(command: Command) -> None:
    (command.folder / "front.svg").write_text("precious")
    assert "exists; pass --overwrite" in command.error("--plot", command.folder / "front.svg")


def test_an_output_that_cannot_be_written_is_refused(command: Command) -> None:
    (command.folder / "file").write_text("")
    command.output = command.folder / "file" / "cache.jsonl"
    assert "cannot write" in command.error()


def test_an_unknown_space_lists_the_valid_names(command: Command) -> None:
    error = command.error(space="mobilnet")
    assert all(name in error for name in preset_names())


def test_a_bad_space_file_names_the_field(command: Command) -> None:
    path = command.folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**space_to_mapping(SPACE), "kernels": [4]}))
    assert "kernels is [4]; kernels must be odd" in command.error(space=path)


_LEAST = int(score(SPACE, smallest_genes(SPACE)).macs[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--flops-max", "1K"], ["at most 1,000 MACs", f"the smallest has {_LEAST:,}"]),
        (["--flops-min", "60G"], ["at least 60,000,000,000 MACs", "the largest has"]),
        (["--flops-min", "2M", "--flops-max", "1M"], ["2,000,000", "1,000,000", "swap"]),
        (["--flops-max", "-3M"], ["'-3M' is not a positive number"]),
        (["--flops-max", "0"], ["'0' is not a positive number"]),
        (["--flops-max", "many"], ["cannot read 'many'", "60M"]),
        (["--flops-min", "3 MB"], ["cannot read '3 MB'"]),
        (["--plot", "front.jpg"], ["front.jpg", ".png, .svg, .pdf"]),
        (["--population", "5"], ["population is 5; it must be at least 10"]),
        (["--population", "-5"], ["population is -5"]),
        (["--generations", "0"], ["generations is 0; it must be at least 1"]),
        (["--solver", "exact", "--cold"], ["leave out --cold, or choose --solver nsga2"]),
        (["--solver", "best"], ["solver", "nsga2", "exact"]),
        (["--entries", "1"], ["1 entry is too small; ask for at least 2"]),
        (["--seed", "-1"], ["seed is -1"]),
        (["--population", "ten"], ["population"]),
        (["--classes", "0"], ["classes is 0"]),
        (["--fitness", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--colour", "red"], ["--colour"]),
    ],
    ids=" ".join,
)
def test_a_bad_option_is_one_line_that_says_what_is_allowed(
    command: Command, arguments: list[str], words: list[str]
) -> None:
    error = command.error(*arguments)
    assert all(word in error for word in words)


def test_weights_that_no_network_meets_are_refused(command: Command) -> None:
    weights = command.folder / "fitness.yaml"
    weights.write_text("max_effectiveness: 0.01\n")
    assert "ρ ≤ 0.01" in command.error("--fitness", weights)


def test_a_missing_output_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    error = check_refused(run_main(main, capsys, "--space", "mobilenet-tiny"), "build-cache")
    assert "output" in error
