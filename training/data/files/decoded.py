"""Decoded pictures: their pixels, and the warnings about them for the user."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.files.preparation import Preparation

#: What happens to pictures that are no squares.
_FITS = {"crop": "cropped to their centre", "pad": "padded with white", "stretch": "stretched to squares"}


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Pictures as pixels.

    Attributes:
        pixels: (N, channels, side, side) uint8.
        oblong: (N,) bool, true if the picture was no square before it was prepared.
        warnings: Pillow's warnings, by the picture's position.
    """

    pixels: Tensor
    oblong: Tensor
    warnings: Mapping[int, str]

    def subset(self, positions: Tensor) -> "Decoded":
        """Return the pictures at ``positions``."""
        warnings = {new: self.warnings[old] for new, old in enumerate(positions.tolist()) if old in self.warnings}
        return Decoded(self.pixels[positions], self.oblong[positions], warnings)

    def replaced(self, positions: Sequence[int], fresh: "Decoded") -> "Decoded":
        """Return the pictures with ``fresh`` ones at ``positions``; the pixels change in place."""
        chosen = torch.tensor(positions)
        self.pixels[chosen] = fresh.pixels
        self.oblong[chosen] = fresh.oblong
        kept = {position: words for position, words in self.warnings.items() if position not in set(positions)}
        return dataclasses.replace(
            self, warnings=kept | {positions[new]: words for new, words in fresh.warnings.items()}
        )

    def tell(self, paths: Sequence[Path], preparation: Preparation, listener: ProgressListener) -> None:
        """Tell the listener of pictures that are no squares, and of Pillow's warnings, in one line each."""
        if self.warnings:
            first = self.warnings[min(self.warnings)]
            listener.remark(f"Pillow warns of {counted(len(self.warnings), 'picture')}, first: {first}")
        if self.oblong.any():
            example = min(paths[position] for position in torch.nonzero(self.oblong).flatten().tolist())
            listener.remark(
                f"not square: {int(self.oblong.sum()):,} of {counted(len(paths), 'picture')} (e.g. {example}); they "
                f"are {_FITS[preparation.fit]}; data.fit may be crop, pad or stretch"
            )
