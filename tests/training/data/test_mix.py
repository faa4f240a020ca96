import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.mix import mix

_FIXED = settings(deadline=None, derandomize=True, database=None)
_COUNTS = st.integers(1, 9)
_SIDES = st.integers(1, 10)
_ALPHAS = st.sampled_from([0.1, 0.5, 1.0, 3.0])
_SEEDS = st.integers(0, 2**32)

#: Mixup alone, CutMix alone, one of both.
_KINDS = (Augmentation(mixup=0.4), Augmentation(cutmix=0.4), Augmentation(mixup=0.4, cutmix=0.4))


def _batch(count: int = 6, side: int = 8, classes: int = 4) -> tuple[Tensor, Tensor]:
    images = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    return images, torch.arange(count) % classes


def _generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _torchvisions(transform: v2.Transform, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return what a transform that is drawn from a choice of one makes of a batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=_generator(seed))))
        torch.multinomial(torch.ones(1), 1)
        mixed, shares = transform(images, labels)
    return mixed, shares


@given(_COUNTS, _SIDES, _ALPHAS, _SEEDS)
@_FIXED
def test_mixup_is_torchvisions_on_the_same_draws(count: int, side: int, alpha: float, seed: int) -> None:
    images, labels = _batch(count, side)
    mixed, shares = mix(images, labels, 4, Augmentation(mixup=alpha), _generator(seed))
    expected = _torchvisions(v2.MixUp(alpha=alpha, num_classes=4), images, labels, seed)
    assert torch.equal(mixed, expected[0])
    assert torch.equal(shares, expected[1])


@given(_COUNTS, _SIDES, _ALPHAS, _SEEDS)
@_FIXED
def test_cutmix_is_torchvisions_on_the_same_draws(count: int, side: int, alpha: float, seed: int) -> None:
    images, labels = _batch(count, side)
    mixed, shares = mix(images, labels, 4, Augmentation(cutmix=alpha), _generator(seed))
    expected = _torchvisions(v2.CutMix(alpha=alpha, num_classes=4), images, labels, seed)
    assert torch.equal(mixed, expected[0])
    assert torch.equal(shares, expected[1])


@given(_SEEDS)
@_FIXED
def test_mixup_adds_the_image_before_in_the_share_of_its_label(seed: int) -> None:
    images, labels = _batch()
    mixed, shares = mix(images, labels, 4, Augmentation(mixup=1.0), _generator(seed))
    own = shares[torch.arange(6), labels]
    assert torch.equal(own, own[:1].expand(6))
    torch.testing.assert_close(shares[torch.arange(6), labels.roll(1)], 1 - own)
    torch.testing.assert_close(mixed, own[0] * images + (1 - own[0]) * images.roll(1, 0))


@given(_SEEDS)
@_FIXED
def test_cutmix_pastes_a_box_of_the_image_before_and_its_area_is_the_labels_share(seed: int) -> None:
    images, labels = _batch()
    mixed, shares = mix(images, labels, 4, Augmentation(cutmix=1.0), _generator(seed))
    pasted = (mixed != images).any(dim=1)
    assert torch.equal(torch.where(pasted[:, None], images.roll(1, 0), images), mixed)
    rows, columns = pasted[0].any(dim=1), pasted[0].any(dim=0)
    assert torch.equal(pasted, (rows[:, None] & columns).expand_as(pasted))
    share = pasted[0].double().mean().float()
    torch.testing.assert_close(shares[torch.arange(6), labels.roll(1)], share.expand(6))


@pytest.mark.parametrize("kind", _KINDS)
@given(count=_COUNTS, seed=_SEEDS)
@_FIXED
def test_the_shares_of_an_image_are_none_negative_and_add_up_to_one(kind: Augmentation, count: int, seed: int) -> None:
    images, labels = _batch(count)
    mixed, shares = mix(images, labels, 7, kind, _generator(seed))
    assert (shares.dtype, shares.shape) == (torch.float32, (count, 7))
    assert (mixed.dtype, mixed.shape) == (torch.float32, images.shape)
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(count))
    assert not shares[:, 4:].any()


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_memory_format_is_kept_and_changes_no_value(kind: Augmentation, layout: torch.memory_format) -> None:
    images, labels = _batch()
    laid_out = images.contiguous(memory_format=layout)
    mixed, shares = mix(laid_out, labels, 4, kind, _generator())
    assert mixed.stride() == laid_out.stride()
    expected = mix(images, labels, 4, kind, _generator())
    assert torch.equal(mixed, expected[0])
    assert torch.equal(shares, expected[1])


@pytest.mark.parametrize("kind", _KINDS)
def test_mixing_neither_reads_nor_moves_the_global_generator_and_spares_the_originals(kind: Augmentation) -> None:
    images, labels = _batch()
    with torch.random.fork_rng(devices=[]):
        results = []
        for seed in range(2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            results.append(mix(images, labels, 4, kind, _generator()))
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(images, _batch()[0])
    assert torch.equal(labels, _batch()[1])


def test_batches_of_one_generator_are_mixed_differently() -> None:
    generator = _generator()
    shares = [mix(*_batch(), 4, Augmentation(mixup=1.0), generator)[1][0, 0].item() for _ in range(20)]
    assert len(set(shares)) == 20


def test_where_both_are_set_each_is_drawn_for_about_half_of_the_batches() -> None:
    images, labels = _batch(2)
    both = Augmentation(mixup=1.0, cutmix=1.0)
    pasted = 0
    for seed in range(200):
        mixed, _ = mix(images, labels, 4, both, _generator(seed))
        pasted += bool(((mixed == images) | (mixed == images.roll(1, 0))).all())
    assert 70 < pasted < 130
