"""Images that were given in memory, kept beside their run, so that it can be resumed and searched."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.path_checks import exists
from fedpareto.training.config.run import RunConfig
from fedpareto.training.data.array_files import write_arrays
from fedpareto.training.data.image_data import ImageData
from fedpareto.training.runs.folder import CONFIG


@contextlib.contextmanager
def kept_images(images: ImageData, config: RunConfig, folder: Path) -> Iterator[RunConfig]:
    """Keep images beside the run in ``folder`` while it is made, and from then on if it was made; yield its settings.

    Raises:
        UserError: something is there already, or cannot be written.
    """
    beside = folder.with_name(f"{folder.name}.images")
    if exists(beside, "write"):
        raise UserError(
            f"{beside} is there already, beside {folder}, which is not; remove it, or choose another output"
        )
    write_arrays(beside, images)
    data = dataclasses.replace(config.data, root=str(beside))
    try:
        yield dataclasses.replace(config, data=data)
    finally:
        if not exists(folder / CONFIG):
            shutil.rmtree(beside, ignore_errors=True)
