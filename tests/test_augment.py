import torch
from torch import Tensor

from training.data.augment import Augmentation, augment, random_crop, random_cutout, random_flip


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


def test_the_same_generator_gives_the_same_images_and_another_gives_others() -> None:
    settings = Augmentation(crop=2, flip=True, cutout=3)
    first, again = (augment(_images(), settings, _generator()) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(_images(), settings, _generator(6)))


def test_without_settings_images_stay_as_they_are_and_nothing_is_drawn() -> None:
    images, generator = _images(), _generator()
    before = generator.get_state()
    assert torch.equal(augment(images, Augmentation(), generator), images)
    assert torch.equal(generator.get_state(), before)


def test_augmentation_crops_then_flips_then_cuts_out() -> None:
    images, generator = _images(), _generator()
    expected = random_cutout(random_flip(random_crop(images, 2, generator), generator), 3, generator)
    assert torch.equal(augment(images, Augmentation(crop=2, flip=True, cutout=3), _generator()), expected)


def test_augmentation_keeps_type_shape_and_the_original_and_leaves_the_global_generator_alone() -> None:
    images = _images()
    original, before = images.clone(), torch.get_rng_state()
    got = augment(images, Augmentation(crop=2, flip=True, cutout=3), _generator())
    assert got.dtype == torch.uint8
    assert got.shape == images.shape
    assert torch.equal(images, original)
    assert torch.equal(torch.get_rng_state(), before)
