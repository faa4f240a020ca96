"""Options that a command would not read are refused, whatever the command."""

from collections.abc import Callable
from typing import Any

import pytest

from fedpareto.cache.cli import main as build_cache
from fedpareto.search.cli import main as search_subnet
from fedpareto.search.ranking.cli import main as validate_fitness

_SPACE = ("--space", "mobilenet-tiny", "--flops-budget", "1M")
_RUN = ("--run", "nowhere", "--flops-budget", "1M")
_GIVEN = ("--run", "nowhere", "--architecture", "a.json")
_CACHE = ("--space", "mobilenet-tiny", "--output", "cache.jsonl", "--solver", "exact")


@pytest.mark.parametrize(
    ("command", "arguments", "option"),
    [
        (search_subnet, (*_SPACE, "--calibration", "pooled"), "--calibration"),
        (search_subnet, (*_SPACE, "--calibration", "none"), "--calibration"),
        (search_subnet, (*_SPACE, "--checkpoint", "newest"), "--checkpoint"),
        (search_subnet, (*_SPACE, "--finetune-lr", "0.1"), "--finetune-lr"),
        (search_subnet, (*_RUN, "--finetune-lr", "0.1"), "--finetune-lr"),
        (search_subnet, (*_SPACE, "--allow-uncalibrated", "true"), "--allow-uncalibrated"),
        (search_subnet, (*_RUN, "--allow-uncalibrated", "true"), "--allow-uncalibrated"),
        (search_subnet, (*_RUN, "--threads", "2"), "--threads"),
        (search_subnet, (*_RUN, "--check-latency", "false"), "--check-latency"),
        (search_subnet, (*_SPACE, "--precision", "int8"), "--precision"),
        (search_subnet, (*_SPACE, "--batch", "8"), "--batch"),
        (search_subnet, (*_RUN, "--params-budget", "1M", "--batch", "8"), "--batch"),
        (search_subnet, (*_GIVEN, "--seed", "3"), "--seed"),
        (validate_fitness, ("--run", "nowhere", "--held-out", "0.3"), "--held-out"),
        (build_cache, (*_CACHE, "--seed", "3"), "--seed"),
        (build_cache, (*_CACHE, "--population", "50"), "--population"),
        (build_cache, (*_CACHE, "--generations", "50"), "--generations"),
    ],
)
def test_an_option_that_nothing_reads_is_refused_in_one_line(
    command: Callable[[Any], None], arguments: tuple[str, ...], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command(arguments)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    assert f"error: {option} is read only with" in told or f"error: {option} is read only where" in told


def test_targets_have_their_own_precision_and_batch(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    targets = tmp_path / "targets.yaml"
    targets.write_text("phone: {flops_budget: 1M}\n")
    for option, value in (("--precision", "int8"), ("--batch", "8")):
        with pytest.raises(SystemExit) as caught:
            search_subnet(["--space", "mobilenet-tiny", "--targets", str(targets), option, value])
        assert caught.value.code == 2
        assert f"error: {option} is read only with" in capsys.readouterr().err
