import torch

from fedpareto.training.randomness import derive_seed, numpy_stream, torch_stream


def test_a_seed_depends_on_the_run_and_on_every_part_of_the_purpose() -> None:
    seeds = {
        derive_seed(0, "client", 1, 2),
        derive_seed(1, "client", 1, 2),
        derive_seed(0, "clients", 1, 2),
        derive_seed(0, "client", 2, 1),
        derive_seed(0, "client", 12),
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_in_every_process() -> None:
    assert derive_seed(3, "client", 4, 5) == 4121103471671159862


def test_streams_repeat_themselves_and_leave_the_global_generators_alone() -> None:
    before = torch.get_rng_state()
    first = torch.rand(4, generator=torch_stream(0, "a"))
    assert torch.equal(first, torch.rand(4, generator=torch_stream(0, "a")))
    assert not torch.equal(first, torch.rand(4, generator=torch_stream(0, "b")))
    assert numpy_stream(0, "a").random() == numpy_stream(0, "a").random()
    assert torch.equal(before, torch.get_rng_state())
