import numpy as np
from helpers.networks.exhaustive import Case, cases
from helpers.networks.strategies import runs, tiny_space
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.cache.costs.cost import count_cost
from fedpareto.cache.exact.labels import Backpointers, Extension, Labels, State, extended, joined, origins
from fedpareto.cache.exact.plan import BlockChoices
from fedpareto.cache.exact.solver import solve_front
from fedpareto.fitness.score import score
from fedpareto.supernet.architecture import Architecture, Block, Stage
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.genes import decode


def _labels(count: int, seed: int, start: int = 0) -> Labels:
    generator = np.random.default_rng(seed)
    return Labels(
        generator.integers(0, 99, size=(2, count)).astype(float),
        generator.integers(-9, 9, size=count).astype(float),
        generator.integers(0, 9, size=count).astype(float),
        np.arange(start, start + count),
    )


@st.composite
def _ways(draw: st.DrawFn) -> list[Extension]:
    extensions = []
    for number in range(draw(st.integers(1, 4))):
        labels = _labels(draw(st.integers(1, 5)), draw(st.integers(0, 99)), start=100 * number)
        choice = np.array(draw(st.lists(st.integers(0, 11), min_size=1, max_size=4, unique=True)))
        options = _labels(len(choice), draw(st.integers(0, 99)))
        extensions.append(
            Extension(
                labels,
                BlockChoices(options.costs, options.log_widths, np.full(len(choice), 3), options.entropy),
                choice,
                offset=np.arange(len(labels.record), dtype=float) / 4,
            )
        )
    return extensions


@given(_ways())
@runs(150)
def test_every_label_grows_by_every_option_once_and_can_be_traced_back(extensions: list[Extension]) -> None:
    labels = extended(extensions)
    assert labels.record.tolist() == list(range(sum(ext.size for ext in extensions)))
    parents, choices = origins(extensions, labels.record)
    expected = [(int(record), int(c)) for ext in extensions for record in ext.labels.record for c in ext.choice]
    assert list(zip(parents.tolist(), choices.tolist(), strict=True)) == expected
    for number, (parent, choice) in enumerate(expected):
        ext = extensions[parent // 100]
        before, option = parent % 100, ext.choice.tolist().index(choice)
        costs = ext.labels.costs[:, before] + ext.options.costs[:, option]
        assert labels.costs[:, number].tolist() == costs.tolist()
        assert labels.log_widths[number] == ext.labels.log_widths[before] + ext.options.log_widths[option]
        assert labels.entropy[number] == ext.labels.entropy[before] + ext.offset[before] + ext.options.gains[option]


@given(_ways(), st.data())
@runs(80)
def test_labels_are_traced_in_any_order(extensions: list[Extension], data: st.DataObject) -> None:
    count = sum(ext.size for ext in extensions)
    numbers = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=20)), dtype=np.int64)
    parents, choices = origins(extensions, np.arange(count))
    some_parents, some_choices = origins(extensions, numbers)
    assert some_parents.tolist() == parents[numbers].tolist()
    assert some_choices.tolist() == choices[numbers].tolist()


def test_joined_labels_are_one_after_the_other() -> None:
    one, other = _labels(3, 0), _labels(2, 1, start=50)
    both = joined([one, other])
    for part, index in ((one, np.arange(3)), (other, np.arange(3, 5))):
        for column, expected in zip(both.take(index), part, strict=True):
            assert np.array_equal(column, expected)


def test_a_finished_stage_adds_its_depth_and_the_square() -> None:
    state = State(width=2, layers=7, depths=1, squares=1, stem=0.5).finished(3)
    assert state == State(width=2, layers=7, depths=4, squares=10, stem=0.5)


def _grow(
    trail: Backpointers, place: tuple[int, int, int], parents: Labels, choices: list[int], keep: IntArray
) -> Labels:
    """Grow every parent by every choice and record those kept."""
    count = len(choices)
    options = BlockChoices(np.zeros((1, count)), np.zeros(count), np.ones(count, dtype=np.int64), np.zeros(count))
    extensions = [Extension(parents, options, np.array(choices), np.zeros(len(parents.record)))]
    return trail.record(place, extensions, extended(extensions).take(keep))


def test_a_trail_leads_back_to_the_choices_made() -> None:
    space = tiny_space()
    # Choices are kernel·expands + expand: 3 expand ratios (2, 3, 4) of 2 kernels (3, 5).
    trail = Backpointers(space, resolution=1)
    stems = Labels(np.zeros((1, 2)), np.zeros(2), np.zeros(2), np.array([0, len(space.stem_choices) - 1]))
    first = _grow(trail, (0, 0, 1), stems, [0, 4], np.array([1, 3]))  # stem 0 with 4, the last stem with 4
    second = _grow(trail, (1, 0, 0), first, [5], np.array([0, 1]))
    third = _grow(trail, (1, 1, 0), second, [2, 3], np.array([0, 3]))  # the first with 2, the other with 3
    last = _grow(trail, (2, 0, 2), joined([second, third]), [1], np.arange(4))
    assert trail.length == len(space.stem_choices) + 2 + 2 + 2 + 4
    narrow, *_, wide = [*space.stem_choices, *space.stem_choices]

    def network(stem: int, *later: Block) -> Architecture:
        widths = [list(choices) for choices in space.width_choices]
        stages = (
            Stage(widths[0][1], (Block(3, 5),)),
            Stage(widths[1][0], (Block(4, 5), *later)),
            Stage(widths[2][2], (Block(3, 3),)),
        )
        return Architecture("mobilenet", 12, stem, stages)

    expected = [network(narrow), network(wide), network(narrow, Block(4, 3)), network(wide, Block(2, 5))]
    assert [decode(space, genes) for genes in trail.genes(last.record)] == expected
    assert [decode(space, genes) for genes in trail.genes(last.record[[3, 0]])] == [expected[3], expected[0]]
    assert trail.genes(last.record[:0]).shape[0] == 0


@given(cases(networks=5000))
@runs(60)
def test_genes_read_backwards_have_ascending_macs_of_their_own(case: Case) -> None:
    # The front is ordered by the labels' MACs: genes of other networks would be out of order.
    scores = score(case.space, solve_front(case.space, case.weights, [count_cost(case.space, "macs")]), case.weights)
    assert (np.diff(scores.macs) > 0).all()
    assert (np.diff(scores.fitness) > -case.tolerance).all()
