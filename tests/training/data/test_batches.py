import dataclasses

import pytest
import torch
from helpers.runs.federation import NORMALISATION, random_images

from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.batches import Batches, plain_batches, prepare
from fedpareto.training.data.images import ImageSet, Normalisation
from fedpareto.training.data.mix import mix

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


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    ((images, labels),) = _epoch(_numbered(5), 6, _generator())
    assert sorted(images) == list(range(5))
    assert [number + 100 for number in images] == labels
    assert _epoch(_numbered(0), 6, _generator()) == []


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


_MIXING = Augmentation(crop=1, flip=True, mixup=0.3, cutmix=1.0)
_LAYOUTS = (torch.channels_last, torch.contiguous_format)


def test_with_mixing_labels_are_the_shares_of_the_classes() -> None:
    batches = list(Batches(6, _MIXING, NORMALISATION, 4).epoch(random_images(20), 8, _generator()))
    assert len(batches) == 3
    for _, shares in batches:
        assert (shares.dtype, shares.shape) == (torch.float32, (6, 4))
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(6))
    # Some image has a share of two classes: labels were really mixed.
    assert any(((shares > 0).sum(dim=1) == 2).any() for _, shares in batches)


def test_a_batch_is_mixed_after_it_is_normalised_and_resized() -> None:
    data, generator = random_images(6), _generator()
    order = torch.randperm(6, generator=generator)
    expected = mix(
        prepare(data.images[order], 6, NORMALISATION), data.labels[order], 4, Augmentation(mixup=1.0), generator
    )
    (batch,) = Batches(6, Augmentation(mixup=1.0), NORMALISATION, 4).epoch(data, 6, _generator())
    assert torch.equal(batch[0], expected[0])
    assert torch.equal(batch[1], expected[1])


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(crop=1, randaugment=1), _MIXING])
@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize(("resolution", "channels"), [(8, 3), (6, 3), (6, 1), (8, 5)])
def test_memory_of_a_batch_is_like_the_batches_of_an_epoch(
    augmentation: Augmentation, layout: torch.memory_format, resolution: int, channels: int
) -> None:
    if augmentation.randaugment and channels == 5:
        augmentation = dataclasses.replace(augmentation, randaugment=0)
    data = random_images(10)
    data = dataclasses.replace(data, images=data.loaded()[:, :1].repeat(1, channels, 1, 1))
    batches = Batches(5, augmentation, Normalisation((0.5,) * channels, (0.25,) * channels), 4, layout)
    empty = batches.empty(resolution, torch.device("cpu"))
    epoch = list(batches.epoch(data, resolution, _generator()))
    assert len(epoch) == 2
    assert all(tensor.device.type == "cpu" and not tensor.any() for tensor in empty)
    for batch in epoch:
        assert batch[0].is_contiguous(memory_format=layout)
        for tensor, memory in zip(batch, empty, strict=True):
            assert (memory.shape, memory.dtype) == (tensor.shape, tensor.dtype)
            # Of a single channel both formats are one, whatever the strides say.
            assert channels == 1 or memory.stride() == tensor.stride()


def test_the_memory_format_changes_no_value_of_a_batch() -> None:
    first, second = (
        next(Batches(5, _MIXING, NORMALISATION, 4, layout).epoch(random_images(10), 8, _generator()))
        for layout in _LAYOUTS
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


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
    prepared = prepare(_numbered(4, side=5).loaded(), 5, NORMALISATION)
    assert prepared.is_contiguous(memory_format=torch.channels_last)


def test_prepared_images_lie_contiguous_in_memory_if_asked() -> None:
    for resolution in (5, 7):
        assert prepare(
            _numbered(4, side=5).loaded(), resolution, NORMALISATION, torch.contiguous_format
        ).is_contiguous()


@pytest.mark.parametrize(
    "augmentation", [Augmentation(), Augmentation(crop=2, flip=True, cutout=3), Augmentation(flip=True)]
)
@pytest.mark.parametrize("at_once", [2, 3, 100])
def test_batches_that_are_made_together_are_those_made_one_by_one(augmentation: Augmentation, at_once: int) -> None:
    data = random_images(23)
    batches = Batches(4, augmentation, NORMALISATION, 4)
    expected = list(batches.epoch(data, 6, _generator()))
    found = list(batches.epoch(data, 6, _generator(), at_once))
    assert len(found) == len(expected) == 5
    for (images, labels), (one, its) in zip(found, expected, strict=True):
        assert torch.equal(images, one)
        assert images.stride() == one.stride()
        assert torch.equal(labels, its)


def test_normalisation_that_was_first_asked_for_in_evaluation_is_trained_with() -> None:
    normalisation, data = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), random_images(4)
    with torch.inference_mode():
        normalisation.apply(data.loaded())
    weight = torch.ones(1, requires_grad=True)
    torch.autograd.backward((normalisation.apply(data.loaded()) * weight).sum())
    assert weight.grad is not None
