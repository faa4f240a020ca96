import json
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Outcome, check_refused, run_main, standard_input
from helpers.networks.strategies import tiny_space

from fedpareto.cache.cache_file import Cache, write_cache
from fedpareto.cache.entries import make_entries
from fedpareto.fitness.cli import main
from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.genes import decode, encode, random_genes, smallest_genes
from fedpareto.supernet.space_file import preset_names

SPACE = tiny_space()
SMALLEST = decode(SPACE, smallest_genes(SPACE))
SOME = [decode(SPACE, genes) for genes in random_genes(SPACE, 3, np.random.default_rng(0))]


class Command:
    """``score-subnet`` on mobilenet-tiny, with what it reads."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.capsys, self.patch = capsys, patch

    def __call__(self, *arguments: object, stdin: str | bytes = "") -> Outcome:
        self.patch.setattr("sys.stdin", standard_input(stdin))
        return run_main(main, self.capsys, "--space", "mobilenet-tiny", *arguments)

    def error(self, *arguments: object, stdin: str | bytes = "") -> str:
        return check_refused(self(*arguments, stdin=stdin), "score-subnet")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


def _check_reports(out: str, architectures: list[Architecture]) -> None:
    reports = [json.loads(line) for line in out.splitlines()]
    assert [report["architecture"] for report in reports] == [a.to_json() for a in architectures]
    for report, architecture in zip(reports, architectures, strict=True):
        scores = score(SPACE, encode(SPACE, architecture))
        for name in ("macs", "params", "activation_bytes", "fitness", "rho", "feasible"):
            assert report[name] == getattr(scores, name)[0]
        assert report["entropy"] == scores.entropy[:, 0].tolist()


def test_an_architecture_on_standard_input_is_scored_as_json(command: Command) -> None:
    outcome = command("--json", stdin=str(SMALLEST))
    assert (outcome.code, outcome.err) == (0, "")
    _check_reports(outcome.out, [SMALLEST])


def test_a_pretty_printed_file_is_one_architecture(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_text(json.dumps(SOME[0].to_json(), indent=2))
    _check_reports(command(path, "--json").out, [SOME[0]])


def test_json_lines_are_scored_line_by_line(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "nets.jsonl"
    path.write_text("\n\n".join(str(architecture) for architecture in SOME) + "\n")
    _check_reports(command("--json", path).out, SOME)
    _check_reports(command("--json", "-", stdin=path.read_text()).out, SOME)


def test_a_cache_file_is_scored_entry_by_entry(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    entries = make_entries(SPACE, random_genes(SPACE, 4, np.random.default_rng(1)), SPACE.fitness)
    write_cache(path, Cache(SPACE, tuple(entries), SPACE.fitness, "nsga2", {}))
    _check_reports(command(path, "--json").out, [entry.architecture for entry in entries])


def test_a_reports_own_line_can_be_scored_again(command: Command) -> None:
    first = command("--json", stdin=str(SMALLEST)).out
    assert command("--json", stdin=first).out == first


def test_the_table_shows_the_numbers_and_standard_error_the_next_step(command: Command) -> None:
    outcome = command(stdin=str(SMALLEST))
    assert outcome.code == 0
    assert "mobilenet-tiny, 10 classes" in outcome.out
    macs = int(score(SPACE, smallest_genes(SPACE)).macs[0])
    assert f"{macs:,}" in outcome.out
    assert "yes" in outcome.out
    assert outcome.err == f"next: search-subnet --space mobilenet-tiny --flops-budget {macs}\n"


def test_the_number_of_classes_can_be_given(command: Command) -> None:
    more = json.loads(command("--json", "--classes", "110", stdin=str(SMALLEST)).out)
    expected = score(SPACE.adapted(classes=110), smallest_genes(SPACE))
    assert (more["macs"], more["params"]) == (expected.macs[0], expected.params[0])


def test_weights_can_be_given_as_a_file(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "fitness.yaml"
    path.write_text("depth_penalty: 0\nmax_effectiveness: 0.1\n")
    report = json.loads(command("--json", "--fitness", path, stdin=str(SMALLEST)).out)
    plain = json.loads(command("--json", stdin=str(SMALLEST)).out)
    assert report["fitness"] == pytest.approx(plain["fitness"] + 10 * plain["depth_regularity"])
    assert (report["feasible"], plain["feasible"]) == (False, True)


def test_an_unknown_space_lists_the_valid_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", standard_input(str(SMALLEST)))
    error = check_refused(run_main(main, capsys, "--space", "mobilenet"), "score-subnet")
    assert all(name in error for name in preset_names())


_OUTSIDE = str(SMALLEST).replace('"kernel": 3', '"kernel": 7', 1)


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        ("", ["standard input is empty"]),
        (" \n\n", ["standard input is empty"]),
        ("{", ["standard input is not valid JSON"]),
        ("{}", ["standard input", "lacks the field 'family'"]),
        ("[]", ["standard input", "must be a JSON object"]),
        (f"{SMALLEST}\n{{\n", ["standard input:2 is not valid JSON"]),
        (f"{SMALLEST}\n3\n", ["standard input:2", "must be a JSON object"]),
        (
            f"{SMALLEST}\n\n{_OUTSIDE}\n",
            ["standard input:3", "stages[0].blocks[0].kernel is 7; allowed: 3, 5"],
        ),
        (_OUTSIDE, ["standard input", "stages[0].blocks[0].kernel is 7; allowed: 3, 5"]),
        (b"\xff\xfe{}", ["standard input"]),
        ('{"format": "fedpareto-cache"}\n{"format": "fedpareto-cache"}\n', ["standard input"]),
    ],
)
def test_bad_input_is_one_line_that_names_the_place(command: Command, stdin: str | bytes, words: list[str]) -> None:
    error = command.error("--json", stdin=stdin)
    assert all(word in error for word in words)


def test_a_missing_file_is_named(command: Command, tmp_path: Path) -> None:
    assert "nowhere.json: No such file" in command.error(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--classes", "0"], "classes is 0"),
        (["--classes", "ten"], "classes"),
        (["--fitness", "nowhere.yaml"], "nowhere.yaml"),
        (["--colour"], "--colour"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(command: Command, arguments: list[str], word: str) -> None:
    assert word in command.error(*arguments, stdin=str(SMALLEST))
