import dataclasses

import pytest
from helpers.runs.trackers import QUIET

from fedpareto.training.evaluation.evaluator import Probe
from fedpareto.training.evaluation.measures import ClientSpread, Measures
from fedpareto.training.trackers.probe_table import print_probes
from fedpareto.training.trackers.records import record_from_json
from fedpareto.training.trackers.terminal import TerminalProgress

_ALL_ONE = Measures(0.5, 0.46, None, 0.4, 0.01, 0.87, 1, (1.0, 0.0))
_GOOD = Measures(0.9, 0.91, None, 0.2, 0.02, 0.87, 2, (1.0, 0.8))
_PROBES = (
    Probe(35_300_000, 1, 0.87, 75, _ALL_ONE),
    Probe(179_700_000, 1, 0.96, 75, _GOOD, ClientSpread(4, 0.9, 0.7, 0.125)),
)
_RECORD = dataclasses.replace(QUIET, probes=_PROBES)


def test_the_table_has_measures_intervals_and_a_remark_on_what_is_odd(capsys: pytest.CaptureFixture[str]) -> None:
    print_probes(_RECORD)
    said = capsys.readouterr().out
    assert "on 75 images (95 % interval)" in said
    assert "87.0% (77.6–92.8)" in said
    assert "balanced" in said
    assert "90.0%" in said
    assert "top-5" not in said
    remark = "the network of 35.3M MACs: it names one class for every image (balanced accuracy 50.0%)"
    assert remark in said
    assert "the network of 179.7M MACs over 4 clients: mean accuracy 90.0%, worst tenth 70.0%" in said
    assert "179.7M MACs: " not in said


def test_probes_without_measures_have_a_table_of_accuracies(capsys: pytest.CaptureFixture[str]) -> None:
    print_probes(dataclasses.replace(QUIET, probes=(Probe(35_300_000, 1, 0.5),)))
    said = capsys.readouterr().out
    assert "50.0%" in said
    assert "balanced" not in said
    assert "interval" not in said


def test_a_round_of_a_doubtful_network_is_remarked_on_as_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress(rounds=10, clients_per_round=2, done=3)
    progress.round_done(dataclasses.replace(_RECORD, probes=(_PROBES[0], _PROBES[0])))
    progress.close()
    said = " ".join(capsys.readouterr().err.split())
    assert "35.3M 87.0% (77.6–92.8)" in said
    assert "it names one class for every image (balanced accuracy 50.0%); and 1 other alike" in said


def test_a_record_with_measures_is_read_as_it_was_written() -> None:
    assert record_from_json(_RECORD.to_json()) == _RECORD


@pytest.mark.parametrize(
    ("name", "value"), [("balanced", 1.5), ("macro_f1", -0.1), ("loss", -1.0), ("ece", 2.0), ("recall", [0.5, "x"])]
)
def test_measures_out_of_their_range_are_no_record(name: str, value: object) -> None:
    line = _RECORD.to_json()
    line["probes"][0]["measures"][name] = value
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, the line counts as damaged
        record_from_json(line)
