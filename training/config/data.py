"""Settings of the images: which there are, which are held out, and how they are augmented."""

import dataclasses
from typing import Literal

from fedpareto.training.config.bounds import bounded, check_bounds


@dataclasses.dataclass(frozen=True)
class Reading:
    """Choice of what is read of data.

    Attributes:
        image: column of the images; found by its type or name when left out.
        label: column of the labels.
        client: column of the clients.
        skip_damaged: leave out what cannot be decoded.
        download: fetch what is not there.
    """

    image: str | None = None
    label: str | None = None
    client: str | None = None
    skip_damaged: bool = False
    download: bool = False


Fit = Literal["crop", "pad", "stretch"]

Store = Literal["auto", "memory", "disk", "encoded"]

#: Share of the training images held out for validation.
DEFAULT_VALIDATION = 0.1

#: Images a step of the published recipe.
DEFAULT_BATCH = 64


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images.

    Attributes:
        name: digits, cifar10, cifar100, imagefolder, clientfolders, table, leaf, huggingface, webdataset, npz,
            module:function for a function that returns ImageData, or a data set that an installed package brings.
        root: folder of the images; holds train/CLASS and test/CLASS for imagefolder, train/CLIENT/CLASS for
            clientfolders. The file of a table or an npz, shard-{000..010}.tar, or hf://OWNER/NAME for huggingface.
        download: fetch CIFAR, or a dataset hf://OWNER/NAME, if it is not there.
        validation: share of the training images that are used held out before they are partitioned, 0.1 when left out;
            leave it out where ROOT/val (or valid, validation) holds validation images.
        crop: pixels of padding of the random crop; the data set's own when left out: an eighth of the side, and none
            where photographs have fewer than 32 pixels a side.
        flip: mirror images; the data set's own when left out.
        cutout: side in pixels of the square cut out; none when left out.
        randaugment: operations of RandAugment on each image; 0 for none.
        magnitude: of RandAugment's operations, 0 to 30.
        mixup: alpha of Mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
        images: so many of the training images are used and read, those held out for validation included, drawn at
            random with the classes' shares; all when left out.
        fit: what is done about pictures that are no squares: crop to the centre, pad with white, or stretch.
        image_column: column of the images, or of their paths; found by its type or name when left out.
        label_column: column of the labels, or their key in the .json of a tar.
        client_column: column of the clients, or their key.
        skip_damaged: leave out pictures that cannot be decoded, and count them.
        allow_duplicates: train although some of the images are also test images.
        store: where the images of files are while they are used: memory; disk (decoded once, then read from the disk);
            encoded (left as they are, and decoded batch by batch); auto for the first of these that has room.
        decoders: processes that decode with store encoded; one a core, 8 at the most, when left out.
    """

    name: str = "digits"
    root: str = "data"
    download: bool = False
    validation: float | None = None
    crop: int | None = None
    flip: bool | None = None
    cutout: int | None = None
    randaugment: int = bounded(0, least=0, hint=" (0 for none)")
    magnitude: int = bounded(9, least=0, most=30)
    mixup: float = bounded(0.0, least=0, hint=" (0 for none)")
    cutmix: float = bounded(0.0, least=0, hint=" (0 for none)")
    images: int | None = bounded(None, least=1)
    fit: Fit = "crop"
    image_column: str | None = None
    label_column: str | None = None
    client_column: str | None = None
    skip_damaged: bool = False
    allow_duplicates: bool = False
    store: Store = "auto"
    decoders: int | None = bounded(None, least=1)

    @property
    def validation_share(self) -> float:
        """Share of the training images held out where the data have no validation split."""
        return DEFAULT_VALIDATION if self.validation is None else self.validation

    @property
    def reading(self) -> Reading:
        """Choice of what is read of the data."""
        return Reading(self.image_column, self.label_column, self.client_column, self.skip_damaged, self.download)

    def __post_init__(self) -> None:
        check_bounds(self, "data")
