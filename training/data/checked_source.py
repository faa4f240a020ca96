"""Check of a data source of somebody else: what it lists, its augmentation and its own validation images."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from fedpareto.supernet.common.extensions import blamed, short
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.images import DataError

S = TypeVar("S")


def checked_source(name: str, source: S) -> S:
    """Source whose functions name it where they fail, or return something else than they promise.

    Args:
        name: name of the data set.
        source: a ``Source``.

    Raises:
        DataError: it is no dataclass, as a ``Source`` is; its functions raise the others.
    """
    what = f"the data set {name}"
    if not dataclasses.is_dataclass(source) or isinstance(source, type):
        raise DataError(f"{what} is {short(source)}; it must be a Source")
    functions: dict[str, Any] = {
        "listing": _checked(what, "listing", getattr(source, "listing", None), fault_of_listing),
        "augmentation": _checked(what, "augmentation", getattr(source, "augmentation", None), _fault_of_augmentation),
        "validation": _checked(what, "validation", getattr(source, "validation", None), _fault_of_validation),
    }
    return dataclasses.replace(source, **functions)


def _checked(what: str, part: str, function: Any, fault_of: Callable[[object], str | None]) -> Callable[..., Any]:
    def called(*arguments: Any) -> Any:
        with blamed(what, DataError):
            returned = function(*arguments)
            fault = fault_of(returned)
        if fault is not None:
            raise DataError(f"{what}: {part} returned {fault}")
        return returned

    return called


def fault_of_listing(given: object) -> str | None:
    """Fault of what is to be the listing of a split; None if it has none."""
    if not isinstance(given, Listing):
        return f"{short(given)}; it must return a Listing"
    labels, classes = given.labels, given.classes
    fault = _fault_of_numbers("labels", labels)
    if fault is not None:
        return fault
    if not isinstance(classes, tuple) or not all(isinstance(each, str) for each in classes):
        return f"classes {short(classes)}; they must be a tuple of names"
    if len(set(classes)) < len(classes):
        return f"classes {short(classes)}; every name may stand there once"
    if not len(labels):
        return "no images"
    for extreme in (int(labels.min()), int(labels.max())):
        if not 0 <= extreme < len(classes):
            return f"the label {extreme}; there are {counted(len(classes), 'class')}, numbered from 0"
    return _fault_of_the_rest(given)


def _fault_of_the_rest(given: Listing) -> str | None:
    """Fault of the pictures, the images that are held out and the clients of a listing with good labels."""
    labels = given.labels
    for name in ("subset", "read"):
        if not callable(getattr(given.pictures, name, None)):
            return f"pictures {short(given.pictures)}, which have no method {name}"
    pictures = _length(given.pictures)
    if pictures is not None and pictures != len(labels):
        return f"{counted(pictures, 'picture')} and {counted(len(labels), 'label')}; each picture has one"
    if isinstance(given.held_out, bool) or not isinstance(given.held_out, int) or not 0 <= given.held_out < len(labels):
        return f"held_out {short(given.held_out)} of {counted(len(labels), 'image')}; some must be left to train with"
    if given.clients is None:
        return None
    fault = _fault_of_numbers("clients", given.clients)
    if fault is None and len(given.clients) != len(labels):
        return f"{counted(len(given.clients), 'client')} for {counted(len(labels), 'image')}; each image has one"
    return fault


def _fault_of_numbers(name: str, given: object) -> str | None:
    if isinstance(given, Tensor) and given.ndim == 1 and given.dtype == torch.int64:
        return None
    of = f"{given.dtype} of shape {tuple(given.shape)}" if isinstance(given, Tensor) else short(given)
    return f"{name} {of}; they must be a torch tensor (N,) int64"


def _length(pictures: Any) -> int | None:
    """Number of pictures, where it is known before they are read."""
    for name in ("pixels", "paths"):
        found = getattr(pictures, name, None)
        if found is not None:
            return len(found)
    return None


def _fault_of_augmentation(given: object) -> str | None:
    return None if isinstance(given, Augmentation) else f"{short(given)}; it must return an Augmentation"


def _fault_of_validation(given: object) -> str | None:
    return None if given is None or isinstance(given, Path) else f"{short(given)}; it must return a Path, or None"
