"""What a node may say of its images beside the others, and whose a client's number is."""

import json
from pathlib import Path

import pytest
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.flower import MOST_IMAGES, FlowerConfig
from fedpareto.training.engines.flower.admission import (
    NODES,
    Bindings,
    ClientDescription,
    Plausible,
    bindings,
    read_bindings,
    read_clients,
)

_BOUNDS = Plausible.of(FlowerConfig())

_COUNTS = st.integers(50, 500)


def _client(
    client: int, examples: int = 100, classes: tuple[str, ...] = ("a", "b"), validation: int = 10
) -> ClientDescription:
    return ClientDescription(client, examples, validation, classes, ())


def _described(*clients: ClientDescription) -> dict[int, ClientDescription]:
    return {one.client: one for one in clients}


@runs(200)
@given(st.lists(_COUNTS, min_size=2, max_size=8), st.integers(100_000, MOST_IMAGES), st.integers(0, 8), st.booleans())
def test_whoever_claims_far_more_images_than_the_median_is_left_out_alone(
    honest: list[int], claim: int, place: int, held_out: bool
) -> None:
    liar = min(place, len(honest))
    counts = [*honest[:liar], 0, *honest[liar:]]
    said = [_client(client, count) for client, count in enumerate(counts)]
    said[liar] = _client(liar, 100, validation=claim) if held_out else _client(liar, claim)
    found = _BOUNDS.implausible(_described(*said))
    assert list(found) == [liar]
    assert found[liar].startswith(f"it says {claim:,} {'held-out' if held_out else 'training'} images")
    assert "\n" not in found[liar]


@runs(200)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=9), st.integers(1, 90_000))
def test_clients_of_unequal_size_are_believed(counts: list[int], scale: int) -> None:
    assert _BOUNDS.implausible(_described(*(_client(c, scale * n) for c, n in enumerate(counts)))) == {}


def test_of_two_clients_the_operators_bound_alone_decides() -> None:
    assert _BOUNDS.implausible(_described(_client(0, 1), _client(1, 9_999_999))) == {}
    (reason,) = _BOUNDS.implausible(_described(_client(0, 1), _client(1, 10_000_001))).values()
    assert reason == "it says 10,000,001 training images; at most 10,000,000 are believed (flower.max_examples)"


def _names(count: int, prefix: str = "odd") -> tuple[str, ...]:
    return tuple(f"{prefix}-{index}" for index in range(count))


@pytest.mark.parametrize("odd", [0, 1, 3])
@pytest.mark.parametrize("count", [1001, 100_000])
def test_whoever_names_countless_classes_is_left_out_whenever_it_comes(odd: int, count: int) -> None:
    said = [_client(client) for client in range(4)]
    said[odd] = _client(odd, classes=(*_names(count), "a"))
    found = _BOUNDS.implausible(_described(*said))
    assert list(found) == [odd]
    assert found[odd].startswith(f"it names {count + 1:,} classes, {count:,} of them its own; clients may have 1,000 ")


def test_long_names_that_would_fill_every_header_are_left_out() -> None:
    long = tuple("\u00e4" * 250 + str(index) for index in range(900))
    found = _BOUNDS.implausible(_described(_client(0), _client(1, classes=long), _client(2)))
    assert list(found) == [1]
    assert "or no message would be read" in found[1]


def test_several_that_share_their_names_do_not_push_the_others_out() -> None:
    said = [_client(0), _client(1), _client(2, classes=_names(900, "x")), _client(3, classes=_names(900, "y"))]
    assert list(_BOUNDS.implausible(_described(*said))) == [3]


def test_two_that_name_the_same_countless_classes_push_out_nobody_who_has_a_class_of_its_own() -> None:
    honest = [_client(client, classes=("a", "b", f"own-{client}")) for client in range(5)]
    colluding = [_client(client, classes=_names(2000)) for client in (5, 6)]
    assert set(_BOUNDS.implausible(_described(*honest, *colluding))) == {5, 6}


def test_few_names_that_are_long_are_told_from_many_that_are_short() -> None:
    honest = [_client(client, classes=_names(300, f"c{client}")) for client in range(3)]
    long = tuple("\U0001f600" * 250 + str(index) for index in range(200))
    assert list(_BOUNDS.implausible(_described(*honest, _client(3, classes=long)))) == [3]


def test_a_run_of_many_classes_goes_on_with_them() -> None:
    many = _names(2000)
    assert Plausible.of(FlowerConfig(), settled=2000).implausible(_described(_client(0, classes=many))) == {}


def _list(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_by_a_list_a_number_is_its_nodes_alone(tmp_path: Path) -> None:
    path = _list(
        tmp_path / "list", {"client": 0, "node": "11", "key": "SHA256:x", "name": "a"}, "", {"client": 2, "node": "33"}
    )
    bound = bindings(FlowerConfig(insecure=True, clients=str(path)), None)
    assert bound is not None
    assert bound.problem(0, "11") is bound.problem(2, "33") is None
    assert bound.problem(0, "33") == f"it says it is client 0, which by {path} is node 11's"
    assert bound.problem(1, "44") == f"it says it is client 1, which by {path} is nobody's"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "lists no client"),
        (["x"], "line 1"),
        ([[1]], "line 1"),
        ([{"client": 0, "node": "1"}, {"client": 0, "node": "2"}], "line 2: client 0 is listed twice"),
        ([{"client": 0, "node": "1"}, {"client": 1, "node": "1"}], "node 1 is more than one client"),
        *(
            ([{"client": odd, "node": "1"}], "line 1: client is")
            for odd in (-1, True, "0", 1.0)
        ),
        ([{"node": "1"}], "line 1 lacks the field client"),
        *(
            ([{"client": 0, "node": odd}], "line 1: node is")
            for odd in (None, 1, -1, "", "-1", "1e3", "\u0661", "18446744073709551616", "9" * 5000, ["1"])
        ),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, lines: list[object], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_clients(_list(tmp_path / "list", *lines))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read"):
        read_clients(tmp_path / "none")


def test_without_a_list_the_first_node_keeps_a_number_for_the_whole_run(tmp_path: Path) -> None:
    config = FlowerConfig(root_certificates="ca.crt")
    first = bindings(config, None)
    assert first is not None
    assert first.problem(1, "11") is None
    first.bind(1, "11")
    assert first.problem(1, "22") == (
        "it says it is client 1, which is node 11's for the whole run; if that is the wrong one, list the right one in "
        "--flower.clients FILE and resume"
    )
    assert (
        first.problem(2, "11") == "it says it is client 2, and was client 1 before; a node keeps its number for a run"
    )
    first.keep_in(tmp_path)
    first.bind(3, "33")
    resumed = bindings(config, tmp_path)
    assert resumed is not None
    assert [resumed.problem(1, node) is None for node in ("11", "22")] == [True, False]
    assert [resumed.problem(3, node) is None for node in ("33", "11")] == [True, False]
    # An operator's list is above what was kept.
    listed = bindings(FlowerConfig(clients=str(_list(tmp_path / "list", {"client": 1, "node": "22"}))), tmp_path)
    assert listed is not None
    assert listed.problem(1, "22") is None
    assert listed.problem(1, "11") is not None


def test_what_a_run_has_kept_is_refused_when_it_was_altered(tmp_path: Path) -> None:
    assert read_bindings(tmp_path) == {}
    bound = Bindings(None, NODES, {})
    bound.keep_in(tmp_path)
    bound.bind(0, "11")
    assert read_bindings(tmp_path) == {0: "11"}
    (tmp_path / NODES).write_text('{"0": "22"}')
    with pytest.raises(UserError, match="damaged"):
        read_bindings(tmp_path)


def test_without_tls_nodes_have_no_keys_and_may_come_back_as_others() -> None:
    assert bindings(FlowerConfig(insecure=True), None) is None
