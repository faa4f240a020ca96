"""Subnets of one supernet in one message: what they share travels once, and nothing else does."""

import pytest
import torch
from helpers.networks.strategies import architectures, runs
from helpers.runs.federation import MICRO, micro_space
from helpers.runs.simulation import largest, random_tensors, same_bytes, smallest
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.weights import views
from fedpareto.supernet.slices import slices
from fedpareto.supernet.space import SearchSpace
from fedpareto.training.engines.flower import wire
from fedpareto.training.engines.flower.packing import pack, unpack
from fedpareto.training.engines.flower.wire import WireError
from fedpareto.training.evaluation.calibration import blank_network

_SPACES = [MICRO, micro_space(norm="group"), micro_space(norm="none"), micro_space(kernels=(3, 5, 7))]


@runs(60)
@given(st.data(), st.sampled_from(_SPACES), st.integers(1, 4))
def test_every_job_gets_its_own_tensors_back_and_no_entry_that_is_no_jobs(
    data: st.DataObject, space: SearchSpace, jobs: int
) -> None:
    supernet = {name: tensor + 10 for name, tensor in random_tensors(0, space).items()}
    chosen = [data.draw(architectures(space)) for _ in range(jobs)]
    packed = pack(space, [(one, views(space, supernet, one)) for one in chosen])
    sent = wire.parse_blob(wire.make_blob(packed))
    for architecture, tensors in zip(chosen, unpack(space, chosen, sent), strict=True):
        assert same_bytes(tensors, views(space, supernet, architecture))
    # Values are far from zero: what is not zero is somebody's.
    covered = {name: torch.zeros_like(tensor, dtype=torch.bool) for name, tensor in supernet.items()}
    for architecture in chosen:
        for name, index in slices(space, architecture).items():
            covered[name][index] = True
    assert sum(int((tensor != 0).sum()) for tensor in sent.values()) == sum(int(t.sum()) for t in covered.values())


def test_what_is_a_jobs_own_is_not_shared() -> None:
    pair = [smallest(), largest()]
    networks = [blank_network(MICRO, random_tensors(), architecture).eval() for architecture in pair]
    for index, network in enumerate(networks):
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.fill_(index + 1.0)
    states = [network.state_dict() for network in networks]
    packed = pack(MICRO, list(zip(pair, states, strict=True)))
    for state, tensors in zip(states, unpack(MICRO, pair, packed), strict=True):
        assert same_bytes(tensors, dict(state))
    assert {name.split("/")[0] for name in packed} == {"0", "1", "shared"}


def test_several_subnets_take_hardly_more_than_the_largest() -> None:
    def size(*chosen: Architecture) -> int:
        tensors = random_tensors()
        return len(wire.make_blob(pack(MICRO, [(one, views(MICRO, tensors, one)) for one in chosen])))

    assert size(smallest(), largest(), largest(), smallest()) < 1.1 * size(largest())


@pytest.mark.parametrize("name", ["a", "2/a", "-1/a", "/a"])
def test_a_tensor_of_no_job_is_refused(name: str) -> None:
    with pytest.raises(WireError, match="belongs to no job"):
        unpack(MICRO, [smallest(), largest()], {name: torch.ones(1)})
