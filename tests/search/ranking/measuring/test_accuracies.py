import json
from pathlib import Path

import numpy as np
import pytest
from helpers.networks.strategies import tiny_space
from helpers.runs.rankings import planted, write_accuracies

from fedpareto.search.ranking.measuring.accuracies import AccuraciesError, AccuracyLog, Reading, read_accuracies
from fedpareto.search.ranking.measuring.bands import Subnet
from fedpareto.supernet.common.formats.json_text import sealed
from fedpareto.supernet.genes import decode, random_genes

_HEADER = {"space": "mobilenet-tiny", "seed": 0, "bands": [(1.0, 2.0)]}


def _subnets(count: int = 3) -> list[Subnet]:
    genes = random_genes(tiny_space(), count, np.random.default_rng(0))
    return [Subnet(number, decode(tiny_space(), vector)) for number, vector in enumerate(genes)]


def test_accuracies_are_read_as_they_were_written(tmp_path: Path) -> None:
    sample = planted(tiny_space(), count=8)
    found = read_accuracies(write_accuracies(tmp_path / "a.jsonl", sample))
    assert [each.reading for each in found] == [Reading(accuracy) for accuracy in sample.accuracy.tolist()]
    assert [each.architecture for each in found] == [decode(sample.space, genes) for genes in sample.genes]


def test_a_journal_goes_on_where_it_was_and_is_a_file_of_accuracies(tmp_path: Path) -> None:
    path, subnets = tmp_path / "folder" / "subnets.jsonl", _subnets()
    whole = AccuracyLog(tmp_path / "whole.jsonl", _HEADER, subnets)
    readings = [Reading(0.5), Reading(0.25, (0.5, 0.0)), Reading(1)]
    for reading in readings:
        whole.append(reading)
    begun = AccuracyLog(path, _HEADER, subnets)
    assert begun.missing == subnets
    begun.append(Reading(0.5))
    again = AccuracyLog(path, _HEADER, subnets)
    assert again.readings == readings[:1]
    assert again.missing == subnets[1:]
    again.append(Reading(0.25, (0.5, 0.0)))
    again.append(Reading(1))
    assert again.missing == []
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert [each.reading for each in read_accuracies(path)] == readings


def test_a_line_that_was_being_written_is_measured_again(tmp_path: Path) -> None:
    path, subnets = tmp_path / "subnets.jsonl", _subnets()
    AccuracyLog(path, _HEADER, subnets).append(Reading(0.5))
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"band": 1, "accur')
    assert AccuracyLog(path, _HEADER, subnets).readings == [Reading(0.5)]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"seed": 1},
            r"was begun with seed 0, not 1; repeat the settings it was begun with, or .* --output",
        ),
        ({"bands": [(1.0, 3.0)]}, r"was begun with bands \[\[1.0, 2.0\]\], not"),
        ({"checkpoint": "round-000010"}, r"was begun with checkpoint null, not \"round-000010\""),
    ],
)
def test_a_journal_of_other_settings_is_refused(tmp_path: Path, change: dict[str, object], named: str) -> None:
    path = tmp_path / "subnets.jsonl"
    AccuracyLog(path, _HEADER, _subnets())
    with pytest.raises(AccuraciesError, match=named):
        AccuracyLog(path, {**_HEADER, **change}, _subnets())


def test_a_journal_of_other_subnets_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "subnets.jsonl"
    journal = AccuracyLog(path, _HEADER, _subnets())
    for _ in range(3):
        journal.append(Reading(0.5))
    with pytest.raises(AccuraciesError, match=r":2 holds another subnet than is drawn"):
        AccuracyLog(path, _HEADER, _subnets()[::-1])
    with pytest.raises(AccuraciesError, match=r"more than 2 subnets"):
        AccuracyLog(path, _HEADER, _subnets()[:2])


def test_what_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "subnets.jsonl"
    path.write_text("precious")
    with pytest.raises(AccuraciesError, match="is no file of accuracies"):
        AccuracyLog(path, _HEADER, _subnets())
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", r":2 is not valid JSON"),
        ("[1]", r":2 must be a JSON object, found \[1\]"),
        (
            json.dumps({"architecture": _subnets()[0].architecture.to_json()}),
            r":2 lacks the field accuracy",
        ),
        (json.dumps({"accuracy": 63.2}), r":2: accuracy is 63.2; it must be a number from 0 to 1"),
        (json.dumps({"accuracy": True}), r":2: accuracy is True"),
        (json.dumps({"accuracy": 0.5, "halves": [0.5]}), r":2: halves is \[0.5\]; it must be two numbers from 0 to 1"),
        (json.dumps({"accuracy": 0.5, "halves": [0.5, 1.5]}), r":2: halves is "),
        (json.dumps({"accuracy": 0.5, "halves": 0.5}), r":2: halves is 0.5; "),
        ('{"accuracy": NaN}', r":2 is not valid JSON: NaN"),
        ('{"accuracy": 0.5, "accuracy": 0.6}', r":2 is not valid JSON: the field 'accuracy' is there twice"),
        (json.dumps(sealed({"accuracy": 0.5})).replace("0.5", "0.6"), r":2 is damaged \(its digest does not fit\)"),
        (json.dumps({"accuracy": 0.5}), r":2: "),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, named: str) -> None:
    path = write_accuracies(tmp_path / "a.jsonl", planted(tiny_space(), count=4))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[1:]]))
    with pytest.raises(AccuraciesError, match=named) as caught:
        read_accuracies(path)
    assert "\n" not in str(caught.value)


def test_any_changed_digit_of_a_journal_is_found(tmp_path: Path) -> None:
    path = tmp_path / "subnets.jsonl"
    journal = AccuracyLog(path, _HEADER, _subnets())
    while journal.missing:
        journal.append(Reading(1 / (3 + len(journal.missing)), (0.25, 0.75)))
    content, generator = path.read_bytes(), np.random.default_rng(0)
    places = [place for place, character in enumerate(content) if chr(character).isdigit()]
    for place in generator.choice(places, 40, replace=False):
        digit = (int(chr(content[place])) + generator.integers(1, 10)) % 10
        path.write_bytes(content[:place] + str(digit).encode() + content[place + 1 :])
        with pytest.raises(AccuraciesError):
            read_accuracies(path)
        with pytest.raises(AccuraciesError):
            AccuracyLog(path, _HEADER, _subnets())
    path.write_bytes(content)
    assert [measured.reading for measured in read_accuracies(path)] == journal.readings


def test_a_file_without_accuracies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n")
    with pytest.raises(AccuraciesError, match="holds no accuracies; a line is like"):
        read_accuracies(path)
