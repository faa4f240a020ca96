"""What a search knows of every slot: means of logits, what is settled, what is sent."""

import json
import math

import pytest
from helpers.runs.federation import MICRO, micro_space
from helpers.runs.simulation import largest

from fedpareto.supernet.architecture import Block
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.training.clients.paths import Paths, paths_through
from fedpareto.training.local_objective import Logits
from fedpareto.training.methods.dfnas.decisions import Decisions, decisions_from_json, mean_of, probabilities, undecided


@pytest.fixture(scope="module")
def paths() -> Paths:
    """Two stages of two slots, of 4, 5, 4 and 5 choices."""
    return paths_through(MICRO, largest())


def _leading(choices: int, number: int, by: float) -> tuple[float, ...]:
    """Return logits of which one leads in probability by ``by``; all others are alike."""
    other = (1 - by) / choices
    return tuple(math.log(other + by) if own == number else math.log(other) for own in range(choices))


def test_a_search_begins_with_all_choices_alike_and_all_that_can_be_sent(paths: Paths) -> None:
    search = undecided(paths)
    assert search.logits == ((0.0,) * 4, (0.0,) * 5) * 2
    assert search.settled == (None,) * 4
    assert search.hull(paths) == largest()
    assert search.asked(paths) == search.logits


def test_a_slot_with_one_choice_is_settled_from_the_beginning() -> None:
    space = micro_space(kernels=(3,), expands=(2,))
    paths = paths_through(space, supernet_architecture(space))
    assert undecided(paths).settled == (0, None, 0, None)


def test_new_logits_are_the_mean_weighted_by_numbers_of_images(paths: Paths) -> None:
    answers: list[tuple[float, Logits]] = [
        (30.0, tuple(tuple(0.1 * own for own in range(size)) for size in (4, 5, 4, 5))),
        (10.0, tuple(tuple(-0.3 * own for own in range(size)) for size in (4, 5, 4, 5))),
    ]
    search = undecided(paths).answered(paths, answers, 1.0)
    for slot in search.logits:
        assert slot == pytest.approx([(30 * 0.1 * own - 10 * 0.3 * own) / 40 for own in range(len(slot))])


@pytest.mark.parametrize(("lead", "settled"), [(0.29, None), (0.31, 2)])
def test_a_slot_is_settled_once_the_best_choice_leads_by_the_gap(
    paths: Paths, lead: float, settled: int | None
) -> None:
    moved: Logits = ((0.0,) * 4, (0.0,) * 5, _leading(4, 2, lead), (0.0,) * 5)
    search = undecided(paths).answered(paths, [(1.0, moved)], 0.3)
    assert search.settled == (None, None, settled, None)


def test_what_is_settled_keeps_its_choice_and_is_not_asked_about(paths: Paths) -> None:
    search = Decisions(undecided(paths).logits, (1, None, None, 2))
    first, second, third, fourth = search.asked(paths)
    assert (first, fourth) == (None, None)
    assert (second, third) == ((0.0,) * 5, (0.0,) * 4)
    moved: Logits = (None, _leading(5, 0, 0.5), _leading(4, 3, 0.1), None)
    after = search.answered(paths, [(2.0, moved), (1.0, moved)], 0.3)
    assert after.settled == (1, 0, None, 2)
    assert after.logits[0] == (0.0,) * 4
    assert after.logits[2] == pytest.approx(_leading(4, 3, 0.1))


def test_the_hull_shrinks_to_what_is_settled(paths: Paths) -> None:
    search = Decisions(undecided(paths).logits, (0, None, None, 1))
    stages = search.hull(paths).stages
    assert stages[0].blocks == (Block(kernel=3, expand=2), Block(kernel=5, expand=3))
    assert stages[1].blocks == (Block(kernel=5, expand=3), Block(kernel=3, expand=3))


def test_behind_a_slot_settled_on_none_nothing_is_sent_or_asked_about() -> None:
    space = micro_space(depths=(1, 2, 3))
    paths = paths_through(space, supernet_architecture(space))
    search = Decisions(undecided(paths).logits, (None, 4, None, None, None, None))
    assert [len(stage.blocks) for stage in search.hull(paths).stages] == [1, 3]
    asked = search.asked(paths)
    assert [slot and len(slot) for slot in asked] == [4, 4, 5, 5]
    # Answers are about the hull's slots: the second one of it is the fourth of the network.
    moved = tuple(tuple(float(number) for _ in slot or ()) for number, slot in enumerate(asked, 1))
    after = search.answered(paths, [(1.0, moved)], 1.0)
    assert [slot[0] for slot in after.logits] == [1.0, 0.0, 0.0, 2.0, 3.0, 4.0]
    # The same slots as those the client sees.
    assert [len(slot.choices) for slot in paths_through(space, search.hull(paths)).slots] == [4, 4, 5, 5]


def test_the_best_path_has_what_is_settled_and_else_what_is_most_probable(paths: Paths) -> None:
    logits = ((0.0, 3.0, 1.0, 2.0), (0.0, 0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 0.0), (0.0,) * 5)
    assert Decisions(logits, (None,) * 4).best(paths) == (1, 4, 2, 0)
    assert Decisions(logits, (2, 0, None, 4)).best(paths) == (2, 0, 2, 4)


def test_no_answer_changes_nothing(paths: Paths) -> None:
    assert undecided(paths).answered(paths, [], 0.3) == undecided(paths)


def test_decisions_come_back_from_their_json_to_the_last_bit(paths: Paths) -> None:
    logits = tuple(
        tuple(math.sin(own + 0.1) * 10.0 ** (own - 7) for own in range(len(slot.choices))) for slot in paths.slots
    )
    search = Decisions(logits, (None, 4, 0, None))
    assert decisions_from_json(json.loads(json.dumps(search.to_json()))) == search


def test_the_mean_of_several_searches_has_nothing_settled(paths: Paths) -> None:
    one, other = (
        Decisions(tuple((value,) * len(slot.choices) for slot in paths.slots), (0, 1, 2, 3)) for value in (1.0, 4.0)
    )
    mean = mean_of([one, other])
    assert mean.logits == ((2.5,) * 4, (2.5,) * 5) * 2
    assert mean.settled == (None,) * 4


def test_probabilities_of_large_logits_are_finite() -> None:
    assert probabilities([1e308, -1e308, 0.0]) == [1.0, 0.0, 0.0]
    assert probabilities([0.0, math.log(3)]) == pytest.approx([0.25, 0.75])
