"""Choice of a store: where the pixels of images are while a run trains on them."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_bytes
from fedpareto.supernet.common.machine import available_cores, available_memory
from fedpareto.supernet.common.storage.cache_folder import kept_folder
from fedpareto.supernet.common.storage.disk_room import NoRoomError, check_room
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.config.data import Store
from fedpareto.training.data.files.decoded import Decoded
from fedpareto.training.data.files.kept_pixels import KIND, SUFFIX
from fedpareto.training.data.files.pixel_file import file_size
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.files.reading import Files, decoded_files
from fedpareto.training.data.stores.disk import on_disk
from fedpareto.training.data.stores.encoded import EncodedFiles
from fedpareto.training.data.stores.stored import StoredPixels, stored

#: Most processes that decode where nobody says how many: each takes memory.
_MOST_DECODERS = 8

#: Of the pixels in memory there are copies: what is held out, and what a client trains on.
_COPIES = 2


@dataclasses.dataclass(frozen=True)
class Storage:
    """Store of a run's images.

    Attributes:
        store: memory, disk, encoded, or auto: the first of them that has room.
        decoders: processes that decode; one a core, 8 at the most, when None.
    """

    store: Store = "memory"
    decoders: int | None = None


def read_files(
    files: Files, preparation: Preparation, listener: ProgressListener, storage: Storage
) -> Tensor | StoredPixels:
    """Return the pixels of files, in memory or in the store that is asked for, (N, channels, side, side) uint8.

    Raises:
        DataError: a picture cannot be decoded, has other channels, or there is no room.
        UserError: the disk is full, or what was kept is damaged.
    """
    count = len(files.paths)
    store = _chosen(count, preparation) if storage.store == "auto" else storage.store
    if store == "memory":
        return files.read(preparation, listener)
    files.check_channels(preparation)
    if store == "disk":

        def decode(paths: Sequence[Path]) -> Decoded:
            return decoded_files(paths, preparation, ProgressListener())

        try:
            return on_disk(files.lists(), preparation, decode, listener)
        except NoRoomError as error:
            raise UserError(f"{error}; free some, or give {option('data.store', 'encoded')}") from error
    decoders = storage.decoders or min(available_cores(), _MOST_DECODERS)
    listener.remark(
        f"{counted(count, 'image')} are decoded batch by batch by {counted(decoders, 'process')}, as they "
        f"need {format_bytes(file_size(count, preparation.channels, preparation.side))} decoded (data.store encoded)"
    )
    return stored(EncodedFiles(files.paths, preparation, decoders))


def _chosen(count: int, preparation: Preparation) -> Store:
    """First store that has room: memory, the disk, or the files as they are."""
    needed = file_size(count, preparation.channels, preparation.side)
    available = available_memory()
    if available is None:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if _COPIES * needed <= available:
        return "memory"
    try:
        check_room(kept_folder(KIND), SUFFIX, needed)
    except UserError:
        return "encoded"
    return "disk"
