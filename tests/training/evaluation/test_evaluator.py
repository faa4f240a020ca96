import dataclasses

import numpy as np
import pytest
import torch
from helpers.runs.federation import MICRO, NORMALISATION, micro_space, random_images
from helpers.runs.simulation import largest, micro_entries, random_tensors, smallest
from torch import Tensor, nn

from fedpareto.supernet.networks.weights import extract, network_with
from fedpareto.training.data.batches import prepare
from fedpareto.training.data.images import ImageSet
from fedpareto.training.evaluation.calibration import calibrate
from fedpareto.training.evaluation.evaluator import Evaluation, Evaluator, Probe, choose_probes
from fedpareto.training.evaluation.measures import ClientSpread, client_accuracies


def _evaluator(calibration: int = 20, batch_size: int = 8, held_out: ImageSet | None = None) -> Evaluator:
    images = random_images(calibration, seed=1)
    return Evaluator(MICRO, images, held_out or random_images(30, seed=2), NORMALISATION, batch_size)


class _ByBrightness(nn.Module):
    """Says class 1 of an image that is brighter than the mean, else class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape))
        bright = images.mean(dim=(1, 2, 3))
        return torch.stack([-bright, bright], dim=1)


def test_calibration_sets_the_mean_and_the_variance_over_all_images() -> None:
    norm = nn.BatchNorm2d(3, momentum=None)
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(size, 3, 4, 4, generator=generator) * scale + scale
        for size, scale in ((6, 1.0), (2, 2.0), (3, 5.0))
    ]
    # Leftovers of an earlier calibration count for nothing.
    norm.train()(torch.randn(6, 3, 4, 4, generator=generator) * 100)
    calibrate(norm, batches)
    variances, means = torch.var_mean(torch.cat(batches), dim=(0, 2, 3), correction=0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert not norm.training


def test_calibration_leaves_the_parameters_alone_and_no_gradients() -> None:
    network = network_with(MICRO, smallest(), extract(MICRO, random_tensors(), smallest()), running_statistics=True)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    calibrate(network, [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))])
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_a_network_of_group_norm_runs_nothing_to_calibrate() -> None:
    space = micro_space(norm="group")
    tensors = extract(space, random_tensors(0, space), largest(space))
    network = network_with(space, largest(space), tensors)

    def never() -> Tensor:
        raise AssertionError("a batch was asked for")

    assert not calibrate(network, (never() for _ in range(1))).training


def test_a_subnet_is_calibrated_on_all_calibration_images_in_batches_of_about_one_size() -> None:
    evaluator = _evaluator(calibration=20, batch_size=8)
    subnet = evaluator.subnet(random_tensors(), smallest())
    expected = network_with(MICRO, smallest(), extract(MICRO, random_tensors(), smallest()), running_statistics=True)
    images = evaluator.calibration.images
    calibrate(expected, [prepare(part, 8, NORMALISATION) for part in (images[:7], images[7:14], images[14:])])
    got, wanted = subnet.state_dict(), expected.state_dict()
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, atol=1e-5, rtol=1e-4)


def test_fewer_calibration_images_than_a_batch_are_one_batch() -> None:
    subnet = _evaluator(calibration=5, batch_size=64).subnet(random_tensors(), smallest())
    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms if norm.num_batches_tracked is not None} == {1}


def test_evaluation_leaves_the_supernet_alone() -> None:
    tensors = random_tensors()
    _evaluator().probe(tensors, micro_entries()[:1])
    for name, tensor in random_tensors().items():
        assert torch.equal(tensors[name], tensor)


def test_accuracy_is_the_share_of_held_out_images_classified_rightly() -> None:
    brightness = torch.tensor([10, 250, 20, 240, 30, 230, 200])
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 1])
    pixels = brightness.to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    evaluator = _evaluator(batch_size=3, held_out=ImageSet(pixels, labels, ("dark", "bright")))
    network = _ByBrightness()
    assert evaluator.accuracy(network, resolution=8) == pytest.approx(5 / 7)
    assert network.sizes == [(3, 3, 8, 8), (3, 3, 8, 8), (1, 3, 8, 8)]


def test_accuracy_is_measured_at_the_resolution_of_the_network() -> None:
    network = _ByBrightness()
    _evaluator(batch_size=30).accuracy(network, resolution=12)
    assert network.sizes == [(30, 3, 12, 12)]


def test_a_probe_reports_costs_and_accuracy_of_its_entry() -> None:
    entries, evaluator, tensors = micro_entries(), _evaluator(), random_tensors()
    chosen = [entries[0], entries[-1]]
    probes = evaluator.probe(tensors, chosen).probes
    assert [(probe.macs, probe.params) for probe in probes] == [(entry.macs, entry.params) for entry in chosen]
    for probe, entry in zip(probes, chosen, strict=True):
        assert probe.accuracy == evaluator.accuracy(evaluator.subnet(tensors, entry.architecture), 8)
    assert evaluator.probe(tensors, chosen) == Evaluation(probes)


def test_a_subnet_in_evaluation_mode_treats_every_image_by_itself() -> None:
    evaluator = _evaluator()
    subnet = evaluator.subnet(random_tensors(), smallest())
    images = prepare(evaluator.held_out.images[:6], 8, NORMALISATION)
    with torch.inference_mode():
        together, alone = subnet(images), torch.cat([subnet(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_a_probe_has_measures_and_the_spread_over_clients() -> None:
    labels = np.array([[3, 0, 0, 1, *[0] * 6], [0, 5, *[0] * 8]])
    evaluator, tensors = dataclasses.replace(_evaluator(), labels=labels), random_tensors()
    (probe,) = evaluator.probe(tensors, micro_entries()[:1]).probes
    found = evaluator.predictions(evaluator.subnet(tensors, micro_entries()[0].architecture), 8)
    assert probe.images == len(evaluator.held_out)
    assert probe.measures == found.measures()
    assert probe.clients == ClientSpread.of(client_accuracies(found.recall, labels))
    assert probe.clients is not None
    assert probe.clients.clients == 2


def test_a_probe_of_a_private_run_tells_its_accuracy_alone() -> None:
    evaluator, tensors = _evaluator(), random_tensors()
    alone = dataclasses.replace(evaluator, accuracy_alone=True, labels=np.ones((2, 10), np.int64))
    (open_one,) = evaluator.probe(tensors, micro_entries()[:1]).probes
    (probe,) = alone.probe(tensors, micro_entries()[:1]).probes
    assert probe == Probe(open_one.macs, open_one.params, open_one.accuracy)


@pytest.mark.parametrize("count", [2, 3, 4, 6, 50])
def test_probes_go_from_the_smallest_entry_to_the_largest(count: int) -> None:
    entries = micro_entries()
    probes = choose_probes(entries, count)
    assert probes[0] == entries[0]
    assert probes[-1] == entries[-1]
    assert len(probes) == min(count, len(entries))
    assert [probe.macs for probe in probes] == sorted({probe.macs for probe in probes})


def test_probes_are_spread_evenly_over_the_entries() -> None:
    one = micro_entries()[0]
    entries = [dataclasses.replace(one, macs=macs) for macs in range(21)]
    assert [probe.macs for probe in choose_probes(entries, 5)] == [0, 5, 10, 15, 20]


def test_a_cache_of_one_entry_has_one_probe() -> None:
    assert choose_probes(micro_entries()[:1], 5) == [micro_entries()[0]]
