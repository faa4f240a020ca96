"""The loop ours is compared with: what a published trainer does, image by image in Python."""

import copy
from collections.abc import Iterable

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.networks.network import build_network
from fedpareto.training.clients.trainer import LocalRecipe, make_optimizer
from fedpareto.training.data.images import ImageSet


class PlainLoop:
    """Eager fp32 in the default memory layout; PIL transforms for every image; a deep copy of the network a client."""

    def __init__(self, architecture: Architecture, recipe: LocalRecipe, device: torch.device) -> None:
        self._recipe, self._device = recipe, device
        self._network = build_network(recipe.space, architecture, device=device).train()

    def train(self, data: ImageSet) -> nn.Module:
        """Train a copy of the network for one epoch; return it."""
        transformed = _Transformed(data, self._recipe)
        return self._train(DataLoader(transformed, self._recipe.config.batch, shuffle=True, drop_last=True))

    def train_prepared(self, images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
        """Train a copy of the network for one epoch on normalised images that lie on the device; return it."""
        order = torch.split(torch.randperm(len(labels), device=labels.device), self._recipe.config.batch)
        return self._train((images[chosen], labels[chosen]) for chosen in order)

    def _train(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> nn.Module:
        network = copy.deepcopy(self._network)
        config = self._recipe.config
        optimizer = make_optimizer(network, config, 0.01)
        criterion = nn.CrossEntropyLoss()
        for images, labels in batches:
            optimizer.zero_grad()
            loss = criterion(network(images.to(self._device)), labels.to(self._device))
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            optimizer.step()
        return network


class _Transformed(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, data: ImageSet, recipe: LocalRecipe) -> None:
        self._images = [Image.fromarray(image) for image in data.loaded().permute(0, 2, 3, 1).numpy()]
        self._labels = data.labels.tolist()
        normalisation = recipe.normalisation
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(data.images.shape[-1], padding=recipe.augmentation.crop),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(normalisation.mean, normalisation.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]
