"""Networks with weights of their own beside the supernet."""

from helpers.runs.federation import MICRO
from helpers.runs.simulation import largest, random_tensors, same_bytes, smallest

from fedpareto.supernet.networks.weights import Tensors, extract, views
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.training.runs.models import Branch, Models


def _copy(tensors: Tensors) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _changed(tensors: Tensors) -> None:
    for tensor in tensors.values():
        tensor.add_(1)


def test_a_wanted_branch_inherits_its_slices_as_tensors_of_its_own_size() -> None:
    models = Models(random_tensors())
    models.sync_branches(MICRO, None, {"small": smallest(), "large": largest()})
    for name, architecture in (("small", smallest()), ("large", largest())):
        branch = models.branches[name]
        assert branch.architecture == architecture
        assert {key: tuple(one.shape) for key, one in branch.tensors.items()} == tensor_shapes(MICRO, architecture)
        assert same_bytes(branch.tensors, extract(MICRO, random_tensors(), architecture))
        assert models.tensors(name) is branch.tensors
        _changed(branch.tensors)
    assert same_bytes(models.supernet, random_tensors())
    assert models.tensors(None) is models.tensors("absent") is models.supernet


def test_a_branch_that_is_there_stays_as_it_is_and_others_go() -> None:
    models = Models(random_tensors())
    models.sync_branches(MICRO, None, {"one": smallest(), "other": largest()})
    _changed(models.branches["one"].tensors)
    kept = _copy(models.branches["one"].tensors)
    models.sync_branches(MICRO, None, {"one": smallest()})
    assert models.branches.keys() == {"one"}
    assert same_bytes(models.branches["one"].tensors, kept)
    # A name that is wanted for another network is a new branch.
    models.sync_branches(MICRO, None, {"one": largest()})
    assert same_bytes(models.branches["one"].tensors, random_tensors())


def test_all_tensors_are_moved_and_velocity_only_where_there_is_some() -> None:
    models = Models(random_tensors(1), random_tensors(2), {"one": Branch(largest(), random_tensors(3))})
    doubled = models.moved(lambda tensors: {name: 2 * tensor for name, tensor in tensors.items()})
    assert doubled.velocity is not None
    assert doubled.branches["one"].architecture == largest()
    for seed, found in enumerate((doubled.supernet, doubled.velocity, doubled.branches["one"].tensors), 1):
        assert same_bytes(found, {name: 2 * tensor for name, tensor in random_tensors(seed).items()})
    assert same_bytes(models.supernet, random_tensors(1))
    assert Models(random_tensors()).moved(_copy).velocity is None


def test_an_adopted_branch_is_written_into_its_slices_alone_and_all_branches_begin_anew() -> None:
    models = Models(random_tensors())
    models.sync_branches(MICRO, None, {"one": smallest(), "other": largest()})
    for branch in models.branches.values():
        _changed(branch.tensors)
    adopted, expected = _copy(models.branches["one"].tensors), random_tensors()
    for view in views(MICRO, expected, smallest()).values():
        view.add_(1)
    models.sync_branches(MICRO, "one", {"one": smallest(), "other": largest()})
    assert same_bytes(models.supernet, expected)
    assert same_bytes(models.branches["one"].tensors, adopted)
    assert same_bytes(models.branches["other"].tensors, expected)
