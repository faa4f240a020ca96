"""Commands that are offered to the user: a shell and the command's own parser read back what was meant."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.commands import parsed_words
from helpers.networks.spaces import SMALL
from helpers.wild import wild_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpareto.cache.cache_file import remedy_of
from fedpareto.search.query.options import SearchOptions
from fedpareto.search.query.subject import SearchTarget
from fedpareto.search.query.suggestions import after_search, after_targets
from fedpareto.search.reports.page.search_page import _commands
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.evaluation.evaluator import Probe
from fedpareto.training.session import best_probe, next_search

_REPORT = {"export": {"script": "my subnet/deploy.py", "file": "-subnet.onnx"}}


_END = "the end of a command"


def _read(lines: list[str]) -> list[list[str]]:
    """Return the words that a shell reads from each of some lines."""
    script = "\n".join(f"printf '%s\\0' {line} '{_END}'" for line in lines)
    done = subprocess.run(
        ["/bin/bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}, timeout=60
    )
    commands: list[list[str]] = [[]]
    for word in done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]:
        if word == _END:
            commands.append([])
        else:
            commands[-1].append(word)
    return commands[:-1]


def _subject(name: str, *, run: bool) -> SearchTarget:
    return SearchTarget(SMALL, SMALL.fitness, run=Path(name) if run else None, named=None if run else name)


def _suggested(name: str) -> list[str]:
    """Every command that is suggested about a run, space or file of some name."""
    return [
        after_search(SearchOptions(space=name, flops_budget="60M"), _subject(name, run=False), {}),
        after_targets(SearchOptions(space=name, targets=name), _subject(name, run=False)),
        next_search(Path(name), "60M"),
        remedy_of(Path("cache.jsonl"), name, 7).rsplit("with: ", 1)[1],
        *_commands(_subject(name, run=False), {"latency_table": _TABLE | {"file": name}}, "search-subnet")[:1],
    ]


_TABLE = {"runtime": "onnxruntime", "threads": 2, "batch": 4, "file": "t.json"}

_NAMES = wild_text(min_size=1).filter(lambda name: "\0" not in name and "/" not in name and name.strip(".") != "")


@given(st.lists(_NAMES, min_size=8, max_size=8))
@settings(max_examples=8, deadline=None)
def test_a_shell_reads_back_every_name_in_every_suggestion(names: list[str]) -> None:
    suggested = [(name, line) for name in names for line in _suggested(name)]
    assert all("\n" not in line for _, line in suggested)
    for (name, _), words in zip(suggested, _read([line for _, line in suggested]), strict=True):
        assert any(word == name or word.split("=", 1)[-1] == name for word in words), words


@pytest.mark.parametrize("name", ["runs/one", "my run", "-run", "it's", '"x"', "$HOME", "[red]x[/red]", "é", "a;b"])
def test_the_commands_own_parsers_read_every_suggestion(name: str) -> None:
    for words in _read(_suggested(name)):
        namespace = parsed_words(words)
        assert namespace is not None
        assert name in vars(namespace).values()


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_engine(engine: str, privacy: PrivacyConfig | None = None) -> None:
        config = SimpleNamespace(engine=engine, privacy=privacy or PrivacyConfig())
        monkeypatch.setattr("fedpareto.training.runs.folder.read_run_config", lambda run: config)

    return set_engine


@pytest.mark.parametrize("engine", ["in-process", "flower"])
@pytest.mark.parametrize(
    "options",
    [
        {"flops_budget": "60M"},
        {"flops_budget": "60M", "output": "my subnet"},
        {"flops_budget": "60M", "output": "-s", "export": "onnx"},
        {"flops_budget": "60M", "output": "s", "export": "torchscript"},
        {"min_fitness": -3.5, "fitness": "my fitness.yaml", "checkpoint": "newest", "calibration": "federated"},
        {"latency_budget": "5ms", "latency_table": "my table.json", "batch": 8, "precision": "int8", "output": "s"},
        {"architecture": "it's.json", "output": "s", "export": "exported-program"},
        {"architecture": "it's.json", "finetune_epochs": 2, "finetune_lr": 0.01, "output": "s"},
        {"targets": "my targets.yaml"},
        {"targets": "my targets.yaml", "output": "my subnets", "fitness": "f.yaml"},
    ],
    ids=str,
)
def test_what_is_suggested_asks_for_the_same_subnet_again(connected: Any, engine: str, options: dict[str, Any]) -> None:
    connected(engine)
    given, subject = SearchOptions(run="my run", **options), _subject("my run", run=True)
    line = after_targets(given, subject) if "targets" in options else after_search(given, subject, _REPORT)
    (words,) = _read([line])
    if words[0] == "python":
        assert words[1:] == ["my subnet/deploy.py", "./-subnet.onnx", "PICTURE"]
        return
    namespace = parsed_words(words)
    assert namespace is not None
    assert namespace.run == "my run"
    if words[0] == "search-subnet":
        for name, value in options.items():
            if name not in ("output", "export"):
                assert getattr(namespace, name) == value
        assert namespace.output is not None or namespace.report is not None


def test_no_calibration_is_suggested_that_a_private_federation_refuses(connected: Any) -> None:
    connected("flower", PrivacyConfig(clip=1.0, noise=1.0))
    subject = _subject("my run", run=True)
    assert subject.space.norm == "batch"
    assert "--calibration none" in after_search(SearchOptions(run="my run", flops_budget="60M"), subject, _REPORT)
    exact = SearchOptions(run="my run", flops_budget="60M", exact_statistics=True)
    assert "--calibration" not in after_search(exact, subject, _REPORT)


def test_the_suggested_budget_is_that_of_the_most_accurate_probe_and_no_larger_than_need_be() -> None:
    def probe(macs: int, accuracy: float) -> Probe:
        return Probe(macs, 1, accuracy)

    falling = [probe(10, 0.7), probe(20, 0.9), probe(30, 0.4), probe(40, 0.9), probe(50, 0.8)]
    assert best_probe(falling) == probe(20, 0.9)
    assert best_probe(falling[2:3]) == probe(30, 0.4)
    assert best_probe(list(reversed(falling))) == probe(20, 0.9)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=3)
@given(st.sampled_from(["run", "my run", "-run"]))
def test_a_run_that_found_a_network_itself_suggests_that(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    (folder / "architecture.json").write_text("{}")
    (words,) = _read([next_search(folder, "60M")])
    namespace = parsed_words(words)
    assert namespace is not None
    assert namespace.architecture == str(folder / "architecture.json")
    assert namespace.checkpoint == "newest"
