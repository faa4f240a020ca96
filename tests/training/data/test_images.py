import dataclasses

import numpy as np
import torch
from helpers.runs.federation import random_images

from fedpareto.training.data.images import ImageSet, Normalisation, normalisation_of


def test_a_subset_holds_the_chosen_images_in_the_chosen_order() -> None:
    data = random_images(10)
    subset = data.subset(torch.tensor([7, 2, 2]))
    assert len(subset) == 3
    assert torch.equal(subset.loaded(), torch.stack([data.loaded()[7], data.loaded()[2], data.loaded()[2]]))
    assert subset.labels.tolist() == [3, 2, 2]
    assert subset.classes == data.classes


def test_a_digest_is_that_of_the_values_whatever_their_layout() -> None:
    data = random_images(6)
    copy = ImageSet(data.loaded().clone(memory_format=torch.channels_last), data.labels.clone(), data.classes)
    assert copy.digest() == data.digest()
    assert len(data.digest()) == 16
    int(data.digest(), 16)


def test_a_digest_changes_with_a_pixel_a_label_the_order_the_shape_and_the_classes() -> None:
    data = random_images(6)
    pixel, label = data.loaded().clone(), data.labels.clone()
    pixel[5, 2, 7, 7] ^= 1
    label[0] += 1
    others = [
        dataclasses.replace(data, images=pixel),
        dataclasses.replace(data, labels=label),
        data.subset(torch.tensor([1, 0, 2, 3, 4, 5])),
        dataclasses.replace(data, images=data.loaded().reshape(6, 3, 4, 16)),
        dataclasses.replace(data, classes=("a", "b", "c", "e")),
    ]
    assert len({data.digest(), *(other.digest() for other in others)}) == 6


def test_normalisation_is_mean_and_deviation_over_all_pixels_of_a_channel() -> None:
    data = random_images(50)
    pixels = data.loaded().numpy().astype(np.float64) / 255
    found = normalisation_of(data)
    np.testing.assert_allclose(found.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(axis=(0, 2, 3)), rtol=1e-9)


def test_normalised_images_have_mean_0_and_deviation_1() -> None:
    data = random_images(50)
    applied = normalisation_of(data).apply(data.loaded())
    assert applied.dtype == torch.float32
    torch.testing.assert_close(applied.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(applied.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_a_constant_channel_is_centred_and_stays_finite() -> None:
    pixels = random_images(4).loaded().clone()
    pixels[:, 1] = 51
    found = normalisation_of(ImageSet(pixels, torch.zeros(4).long(), ("a",)))
    assert found.std[1] == 1
    torch.testing.assert_close(found.apply(pixels)[:, 1], torch.zeros(4, 8, 8), atol=1e-6, rtol=0)


def test_applying_a_normalisation_matches_its_formula() -> None:
    images = torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8).view(1, 2, 2, 1)
    applied = Normalisation((0.5, 0.2), (0.5, 0.1)).apply(images)
    torch.testing.assert_close(applied.flatten(), torch.tensor([-1.0, 1.0, 0.0, 2.0]), atol=1e-6, rtol=0)
