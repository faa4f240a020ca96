import torch
from federation import NORMALISATION

from training.data.augment import Augmentation
from training.data.batches import Batches, plain_batches, prepare
from training.data.images import ImageSet, Normalisation

_RAW = Normalisation((0.0,) * 3, (1.0,) * 3)


def _numbered(count: int, side: int = 4) -> ImageSet:
    """Images of one value each: the image's number; labels count from 100."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, side, side).contiguous()
    return ImageSet(pixels, torch.arange(count) + 100, ())


def _epoch(data: ImageSet, size: int, generator: torch.Generator) -> list[tuple[list[int], list[int]]]:
    """Return the numbers of the images, and the labels, of every batch."""
    batches = Batches(size, Augmentation(), _RAW, 10).epoch(data, 4, generator)
    return [((images[:, 0, 0, 0] * 255).round().int().tolist(), labels.tolist()) for images, labels in batches]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_epoch_holds_every_image_at_most_once_with_its_own_label() -> None:
    batches = _epoch(_numbered(20), 5, _generator())
    numbers = [number for images, _ in batches for number in images]
    assert sorted(numbers) == list(range(20))
    assert numbers != list(range(20))
    assert [number + 100 for number in numbers] == [label for _, labels in batches for label in labels]


def test_images_that_fill_no_batch_are_left_out() -> None:
    assert [len(images) for images, _ in _epoch(_numbered(20), 6, _generator())] == [6, 6, 6]
    assert [len(images) for images, _ in _epoch(_numbered(6), 6, _generator())] == [6]
    assert _epoch(_numbered(5), 6, _generator()) == []


def test_epochs_of_one_generator_differ_and_repeat_with_their_seed() -> None:
    generator, data = _generator(), _numbered(20)
    epochs = [_epoch(data, 5, generator) for _ in range(2)]
    assert epochs[0] != epochs[1]
    generator = _generator()
    assert [_epoch(data, 5, generator) for _ in range(2)] == epochs
    assert _epoch(data, 5, _generator(1)) != epochs[0]


def test_training_batches_are_augmented() -> None:
    white = ImageSet(torch.full((8, 3, 4, 4), 255, dtype=torch.uint8), torch.zeros(8).long(), ())
    ((images, _),) = Batches(8, Augmentation(cutout=2), _RAW, 10).epoch(white, 4, _generator())
    assert (images == 0).flatten(1).any(dim=1).all()


def test_plain_batches_hold_every_image_in_order_the_last_batch_smaller() -> None:
    batches = list(plain_batches(_numbered(10), 4, 4, _RAW))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(100, 110))
    assert (torch.cat([images for images, _ in batches])[:, 1, 2, 3] * 255).round().tolist() == list(range(10))


def test_prepared_images_are_normalised_by_channel() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    prepared = prepare(images, 4, Normalisation((0.5, 0.2, 0.0), (0.25, 0.1, 0.5)))
    assert prepared.dtype == torch.float32
    torch.testing.assert_close(prepared[1, :, 2, 1], torch.tensor([-2.0, 0.0, 2.0]), atol=1e-6, rtol=0)


def test_prepared_images_have_the_resolution_of_the_architecture() -> None:
    images = torch.tensor([[0, 100], [40, 60]], dtype=torch.uint8).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert prepare(images, 6, NORMALISATION).shape == (1, 3, 6, 6)
    # Shrunk to one pixel, an image is the mean of its pixels: nothing is skipped.
    torch.testing.assert_close(prepare(images, 1, _RAW).flatten(), torch.full((3,), 50 / 255))


def test_prepared_images_lie_channels_last_in_memory() -> None:
    prepared = prepare(_numbered(4, side=5).images, 5, NORMALISATION)
    assert prepared.is_contiguous(memory_format=torch.channels_last)
