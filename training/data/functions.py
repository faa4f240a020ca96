"""Data of a user's own function, named ``module:function``: it is called for the images whenever they are read."""

import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from fedpareto.supernet.common.extensions import blamed, told
from fedpareto.training.data.array_files import joined, listing_of
from fedpareto.training.data.files.listing import Listing
from fedpareto.training.data.image_data import ImageData, check_image_data
from fedpareto.training.data.images import DataError

#: What parts a module's name from that of its function.
COLON = ":"


def list_function(name: str, root: Path, split: str) -> Listing:
    """List the images of a split that the function ``name`` returns.

    Raises:
        UserError: it cannot be imported, fails, returns something else, or has no images of that split.
    """
    data = called(name, str(root))
    if split == "test":
        if data.test is None:
            raise DataError(f"{name} gives no test images, and test images were asked for; return ImageData(test=…)")
        return listing_of(data.test, data.classes)
    clients = None if data.clients is None else torch.from_numpy(data.clients)
    training = listing_of(data.train, data.classes, clients)
    if split != "train+validation" or data.validation is None:
        return training
    return joined(training, listing_of(data.validation, data.classes))


def has_validation(name: str, root: Path) -> bool:
    """Return True if the function ``name`` returns images for validation.

    Raises:
        UserError: it cannot be imported, fails or returns something else.
    """
    return called(name, str(root)).validation is not None


@functools.lru_cache(maxsize=2)
def called(name: str, root: str) -> ImageData:
    """Image data that the function ``name`` returns; it is called once for a folder.

    Raises:
        UserError: it cannot be imported, fails or returns something else.
    """
    function = _function(name)
    with blamed(name, DataError):
        takes_root = any(
            parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            for parameter in inspect.signature(function).parameters.values()
        )
        returned = function(root) if takes_root else function()
    return check_image_data(returned, name)


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(COLON)
    if not all(part.isidentifier() for part in module.split(".")) or not attribute.isidentifier():
        raise DataError(f"data.name is {name!r}; a function is named module:function, e.g. my_data:load_images")
    try:
        with _working_folder_last():
            found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise DataError(
            f"cannot import {module} of data.name {name} ({error}); run this where the module is, or add its folder to "
            "PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:
        # Whatever a user's module raises is for the user to mend.
        raise DataError(f"cannot import {module} of data.name {name} ({told(error)})") from error
    if not callable(found):
        raise DataError(f"the module {module} has no function {attribute}, which data.name {name} asks for")
    function: Callable[..., Any] = found
    return function


@contextlib.contextmanager
def _working_folder_last() -> Iterator[None]:
    # Installed commands do not look there; nothing installed may be hidden by what lies there.
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
