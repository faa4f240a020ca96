"""Settings of the images: which there are, which are held out, and how they are augmented."""

import dataclasses
from typing import Literal

from fedpareto.training.config.bounds import bounded, check_bounds

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
        name: digits, cifar10, cifar100, imagefolder, module:function for a function that returns ImageData, or a data
            set that an installed package brings.
        root: folder of the images; holds train/CLASS and test/CLASS for imagefolder.
        download: fetch CIFAR if it is not in the root.
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
    store: Store = "auto"
    decoders: int | None = bounded(None, least=1)

    @property
    def validation_share(self) -> float:
        """Share of the training images held out where the data have no validation split."""
        return DEFAULT_VALIDATION if self.validation is None else self.validation

    def __post_init__(self) -> None:
        check_bounds(self, "data")
