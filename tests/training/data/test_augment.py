import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from fedpareto.training.data.augment import Augmentation, augment, rand_augment, random_crop, random_cutout, random_flip

_FIXED = settings(deadline=None, derandomize=True, database=None)
_SIDES = st.integers(1, 12)
_SEEDS = st.integers(0, 2**32)


def _images(count: int = 12, height: int = 6, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def _generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draws(high: int, count: int, generator: torch.Generator) -> list[int]:
    return [int(value) for value in torch.randint(high, (count,), generator=generator)]


def test_a_crop_is_the_window_of_the_padded_image_at_the_drawn_place() -> None:
    images, generator = _images(), _generator()
    tops, lefts = _draws(5, len(images), generator), _draws(5, len(images), generator)
    assert len(set(zip(tops, lefts, strict=True))) > 4
    cropped = random_crop(images, 2, _generator())
    for image, top, left, got in zip(images, tops, lefts, cropped, strict=True):
        expected = torch.zeros_like(image)
        for row in range(6):
            for column in range(9):
                y, x = row + top - 2, column + left - 2
                if 0 <= y < 6 and 0 <= x < 9:
                    expected[:, row, column] = image[:, y, x]
        assert torch.equal(got, expected)


def test_a_crop_pads_with_zeros_and_reaches_every_offset() -> None:
    white = torch.full((400, 3, 4, 4), 255, dtype=torch.uint8)
    cropped = random_crop(white, 1, _generator())
    assert set(cropped.flatten().tolist()) == {0, 255}
    # Zero, one or two borders are cut, in nine ways.
    patterns = {tuple((image[0] == 0).flatten().tolist()) for image in cropped}
    assert len(patterns) == 9


def test_a_flip_mirrors_the_drawn_images_left_to_right_and_no_others() -> None:
    images = _images(64)
    mirrored = _draws(2, 64, _generator())
    assert 20 < sum(mirrored) < 44
    flipped = random_flip(images, _generator())
    for image, mirror, got in zip(images, mirrored, flipped, strict=True):
        expected = torch.stack([image[:, :, 8 - column] for column in range(9)], dim=2) if mirror else image
        assert torch.equal(got, expected)


def test_a_cutout_is_a_square_of_zeros_around_the_drawn_centre_cut_at_the_edge() -> None:
    images, generator = _images(64), _generator()
    rows, columns = _draws(6, 64, generator), _draws(9, 64, generator)
    for side in (1, 2, 3, 4):
        cut = random_cutout(images, side, _generator())
        for image, row, column, got in zip(images, rows, columns, cut, strict=True):
            expected = image.clone()
            top, left = row - side // 2, column - side // 2
            expected[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
            assert torch.equal(got, expected)


@given(_SIDES, _SIDES, st.integers(1, 14), _SEEDS)
@_FIXED
def test_a_crop_is_torchvisions_pad_and_crop_at_the_drawn_place(
    height: int, width: int, padding: int, seed: int
) -> None:
    images, generator = _images(5, height, width), _generator(seed)
    tops, lefts = _draws(2 * padding + 1, 5, generator), _draws(2 * padding + 1, 5, generator)
    cropped = random_crop(images, padding, _generator(seed))
    for image, top, left, got in zip(images, tops, lefts, cropped, strict=True):
        padded = v2.functional.pad(image, [padding] * 4)
        assert torch.equal(got, v2.functional.crop(padded, top, left, height, width))


@given(_SIDES, _SIDES, _SEEDS)
@_FIXED
def test_a_flip_is_torchvisions_horizontal_flip_of_the_drawn_images(height: int, width: int, seed: int) -> None:
    images = _images(5, height, width)
    flipped = random_flip(images, _generator(seed))
    for image, mirror, got in zip(images, _draws(2, 5, _generator(seed)), flipped, strict=True):
        assert torch.equal(got, v2.functional.horizontal_flip(image) if mirror else image)


@given(_SIDES, _SIDES, st.integers(1, 14), _SEEDS)
@_FIXED
def test_a_cutout_is_torchvisions_erase_of_the_square_within_the_image(
    height: int, width: int, side: int, seed: int
) -> None:
    images, generator = _images(5, height, width), _generator(seed)
    rows, columns = _draws(height, 5, generator), _draws(width, 5, generator)
    cut = random_cutout(images, side, _generator(seed))
    for image, row, column, got in zip(images, rows, columns, cut, strict=True):
        top, left = row - side // 2, column - side // 2
        bottom, right = min(top + side, height), min(left + side, width)
        top, left = max(top, 0), max(left, 0)
        black = torch.zeros(3, bottom - top, right - left, dtype=torch.uint8)
        assert torch.equal(got, v2.functional.erase(image, top, left, bottom - top, right - left, black))


@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 30), _SEEDS)
@_FIXED
def test_randaugment_is_torchvisions_on_groups_of_eight_under_one_drawn_seed(
    count: int, operations: int, magnitude: int, seed: int
) -> None:
    images = _images(count, 8, 8)
    got = rand_augment(images, operations, magnitude, _generator(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=_generator(seed))))
        transform = v2.RandAugment(operations, magnitude)
        expected = [transform(images[start : start + 8]) for start in range(0, count, 8)]
    assert torch.equal(got, torch.cat(expected))
    assert (got.dtype, got.shape) == (torch.uint8, images.shape)


def test_images_of_a_group_share_the_draws_of_randaugment_and_groups_differ() -> None:
    image = _images(1, 8, 8)
    augmented = rand_augment(image.expand(40, -1, -1, -1), 2, 15, _generator())
    groups = torch.split(augmented, 8)
    for group in groups:
        assert torch.equal(group, group[:1].expand_as(group))
    assert len({tuple(group[0].flatten().tolist()) for group in groups}) == 5


def test_a_larger_magnitude_of_randaugment_changes_images_more() -> None:
    images = _images(400, 8, 8)
    changes = [
        (rand_augment(images, 1, magnitude, _generator()).float() - images.float()).abs().mean().item()
        for magnitude in (0, 9, 30)
    ]
    assert changes[0] < changes[1] < changes[2]


#: Each with a kind of draw of its own, and all of them.
_EVERY_KIND = (
    Augmentation(crop=2),
    Augmentation(flip=True),
    Augmentation(cutout=3),
    Augmentation(randaugment=2),
    Augmentation(crop=2, flip=True, cutout=3, randaugment=2, magnitude=20),
)


@pytest.mark.parametrize("settings", _EVERY_KIND)
def test_the_same_generator_gives_the_same_images_and_another_gives_others(settings: Augmentation) -> None:
    first, again = (augment(_images(), settings, _generator()) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(_images(), settings, _generator(6)))


def test_mixing_is_no_change_of_single_images() -> None:
    images, generator = _images(), _generator()
    before = generator.get_state()
    assert torch.equal(augment(images, Augmentation(mixup=1.0, cutmix=1.0), generator), images)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("settings", "mixes"),
    [
        (Augmentation(crop=2, flip=True, cutout=3, randaugment=2), False),
        (Augmentation(mixup=0.1), True),
        (Augmentation(cutmix=0.1), True),
    ],
)
def test_only_mixup_and_cutmix_mix_labels(settings: Augmentation, mixes: bool) -> None:
    assert settings.mixes is mixes


def test_without_settings_images_stay_as_they_are_and_nothing_is_drawn() -> None:
    images, generator = _images(), _generator()
    before = generator.get_state()
    assert torch.equal(augment(images, Augmentation(), generator), images)
    assert torch.equal(generator.get_state(), before)


def test_augmentation_crops_then_flips_then_applies_randaugment_then_cuts_out() -> None:
    images, generator = _images(), _generator()
    expected = random_flip(random_crop(images, 2, generator), generator)
    expected = random_cutout(rand_augment(expected, 2, 20, generator), 3, generator)
    settings = Augmentation(crop=2, flip=True, cutout=3, randaugment=2, magnitude=20)
    assert torch.equal(augment(images, settings, _generator()), expected)


@pytest.mark.parametrize("settings", _EVERY_KIND)
def test_augmentation_keeps_type_shape_and_the_original_and_leaves_the_global_generator_alone(
    settings: Augmentation,
) -> None:
    images = _images()
    original, before = images.clone(), torch.get_rng_state()
    got = augment(images, settings, _generator())
    assert got.dtype == torch.uint8
    assert got.shape == images.shape
    assert torch.equal(images, original)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", _EVERY_KIND)
def test_the_state_of_the_global_generator_changes_no_augmentation(settings: Augmentation) -> None:
    with torch.random.fork_rng(devices=[]):
        augmented = []
        for seed in range(2):
            torch.manual_seed(seed)
            augmented.append(augment(_images(), settings, _generator()))
    assert torch.equal(*augmented)


@_FIXED
@given(st.integers(1, 20), st.integers(1, 7), st.booleans(), st.integers(0, 3), st.integers(0, 3), _SEEDS)
def test_the_draws_of_batches_are_those_of_one_call_each(
    count: int, batch: int, flip: bool, crop: int, cutout: int, seed: int
) -> None:
    images, settings = _images(count), Augmentation(crop=crop, flip=flip, cutout=cutout)
    generator = _generator(seed)
    expected = []
    for part in torch.split(images, batch):
        one = random_crop(part, crop, generator) if crop else part
        one = random_flip(one, generator) if flip else one
        expected.append(random_cutout(one, cutout, generator) if cutout else one)
    assert torch.equal(augment(images, settings, _generator(seed), batch), torch.cat(expected))
