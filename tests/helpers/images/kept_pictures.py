"""Pictures that are read through the cache of decoded images, and the clock that it looks at."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.training.data.files.preparation import Preparation, read_picture
from fedpareto.training.data.files.reading import Files

_EIGHT = Preparation(8)

_NOW = time.time_ns


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let so many seconds more have passed since the files were written."""
    monkeypatch.setattr(time, "time_ns", lambda: _NOW() + int(seconds * 1e9))


def read_kept(pictures: Files, preparation: Preparation = _EIGHT, *, keep: bool = True) -> tuple[Tensor, list[str]]:
    """Return the pixels of pictures, and the remarks."""
    remarks: list[str] = []
    return pictures.read(preparation, ProgressListener(remark=remarks.append), keep=keep), remarks


def decoded_alone(pictures: Files, preparation: Preparation = _EIGHT) -> Tensor:
    """Return what each file holds, decoded by itself."""
    pixels = np.stack([read_picture(path, preparation) for path in pictures.paths])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def check_kept(pictures: Files, preparation: Preparation = _EIGHT) -> list[str]:
    """Check that the pixels are those of the files; return the remarks but those on the pictures' shape."""
    pixels, remarks = read_kept(pictures, preparation)
    assert torch.equal(pixels, decoded_alone(pictures, preparation))
    return [remark for remark in remarks if not remark.startswith("not square")]


def names_in(folder: Path) -> list[str]:
    """Return the names of what lies in a folder."""
    return sorted(os.listdir(folder)) if folder.exists() else []
