import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets.folder import IMG_EXTENSIONS

from fedpareto.training.data.files.folders import (
    all_files,
    check_same_classes,
    class_files,
    class_names,
    image_suffixes,
    is_leftover,
    is_there,
)
from fedpareto.training.data.images import DataError
from fedpareto.training.data.sources import SplitName, list_images

_LEFT_FOLDERS = [
    ".thumbnails",
    ".ipynb_checkpoints",
    "__MACOSX",
    "@eaDir",
    ".git",
    "$RECYCLE.BIN",
    "System Volume Information",
]
_LEFT_FILES = ["._1.png", ".hidden.jpg", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", ".DS_Store"]
_OTHER_FILES = ["notes.txt", "labels.csv", "film.mpg", "archive.zip", "README", "array.npz.txt", "weights.h5"]
_CLASSES = st.lists(
    st.sampled_from(["ant", "bée", "cat", "Dog", "0", "a b", "[x]"]), min_size=1, max_size=4, unique=True
)
_NAMES = st.sampled_from(["1.png", "2.JPG", "3.jfif", "4.npy", "5.webp", "6.tiff", "7.gif", "8.Pgm", "9.bmp"])
#: Where below a class a file lies.
_PLACES = st.sampled_from([".", "sub", "sub/deeper", "other"])


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"nothing is decoded")
    return path


@st.composite
def _trees(draw: st.DrawFn) -> dict[str, set[str]]:
    """The relative paths of each class's images."""
    files = st.sets(st.tuples(_PLACES, _NAMES).map("/".join), min_size=1, max_size=5)
    return {name: draw(files) for name in draw(_CLASSES)}


def _write(root: Path, tree: dict[str, set[str]]) -> list[Path]:
    return sorted(_touch(root / name / file) for name, files in tree.items() for file in files)


@settings(max_examples=40, deadline=None)
@given(_trees())
def test_images_are_found_at_any_depth_in_the_order_of_class_and_path(tree: dict[str, set[str]]) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder) / "train"
        written = _write(root, tree)
        found = class_files(root)
        assert sorted(found.paths) == written
        assert found.classes == tuple(sorted(unicodedata.normalize("NFC", name) for name in tree))
        own = [(label, path) for label, path in zip(found.labels, found.paths, strict=True)]
        assert own == sorted(own)
        assert [found.classes[label] for label in found.labels] == [
            unicodedata.normalize("NFC", path.relative_to(root).parts[0]) for path in found.paths
        ]
        assert found.skipped.words(root) is None


@st.composite
def _clutter(draw: st.DrawFn) -> list[tuple[str, str]]:
    """What is put beside the images, by kind."""
    kinds = {
        "leftover folder": _LEFT_FOLDERS,
        "leftover file": _LEFT_FILES,
        "other": _OTHER_FILES,
        "link": ["up", "again", "all"],
    }
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=6))
    return [(kind, draw(st.sampled_from(kinds[kind]))) for kind in chosen]


def _put(place: Path, kind: str, name: str, root: Path) -> bool:
    """Put something that is no image into a folder; return False if that name is there already."""
    path = place / name
    if path.exists() or path.is_symlink():
        return False
    if kind == "leftover folder":
        _touch(path / "inside.png")
    elif kind == "link":
        path.symlink_to({"up": place, "again": root / sorted(os.listdir(root))[-1], "all": root.parent}[name])
    else:
        _touch(path)
    return True


@settings(max_examples=60, deadline=None)
@given(_trees(), _clutter(), st.booleans())
def test_clutter_and_links_that_go_round_change_nothing_and_are_all_counted(
    tree: dict[str, set[str]], clutter: list[tuple[str, str]], deep: bool
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder) / "data" / "train"
        _write(root, tree)
        clean = class_files(root)
        place = clean.paths[0].parent if deep else root / sorted(tree)[0]
        put = sum(_put(place, kind, name, root) for kind, name in clutter)
        found = class_files(root)
        assert (found.classes, found.paths, found.labels) == (clean.classes, clean.paths, clean.labels)
        skipped = found.skipped
        assert sum(map(len, (skipped.leftovers, skipped.others, skipped.outside, skipped.repeated))) == put
        words = skipped.words(root)
        assert (words is None) == (put == 0)
        assert words is None or (str(root) in words and "\n" not in words)


@pytest.mark.parametrize("name", [*_LEFT_FOLDERS, *_LEFT_FILES])
def test_what_a_tool_leaves_is_neither_a_class_nor_an_image(tmp_path: Path, name: str) -> None:
    assert is_leftover(name)
    _touch(tmp_path / "cat" / "1.png")
    if name in _LEFT_FOLDERS:
        _touch(tmp_path / name / "1.png")
        _touch(tmp_path / "cat" / name / "1.png")
    else:
        _touch(tmp_path / name)
        _touch(tmp_path / "cat" / name)
    found = class_files(tmp_path)
    assert found.classes == ("cat",)
    assert found.paths == (tmp_path / "cat" / "1.png",)
    assert found.skipped.words(tmp_path) == f"skipped in {tmp_path}: 2 hidden or left by a tool (e.g. {name})"


def test_what_is_skipped_is_told_in_one_line_with_counts_and_examples(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/._1.png", "cat/notes.txt", "cat/more.txt", "labels.csv"):
        _touch(tmp_path / name)
    (tmp_path / "cat" / "loop").symlink_to(tmp_path / "cat")
    assert class_files(tmp_path).skipped.words(tmp_path) == (
        f"skipped in {tmp_path}: 1 hidden or left by a tool (cat/._1.png), 2 no image (e.g. cat/more.txt), "
        "1 outside the class folders (labels.csv), 1 linked and read already (cat/loop)"
    )


def test_all_that_pillow_decodes_and_torchvision_lists_is_read() -> None:
    assert {*IMG_EXTENSIONS, ".jfif", ".npy", ".gif", ".tga", ".jp2", ".avif", ".qoi"} <= image_suffixes()
    assert not image_suffixes() & {".mpg", ".h5", ".grib", ".wmf", ".pdf", ".txt", ""}


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_link_to_a_folder_or_file_elsewhere_is_followed(tmp_path: Path, depth: int) -> None:
    outside = tmp_path / "elsewhere"
    _touch(outside / "inner" / "1.png")
    image = _touch(tmp_path / "image.png")
    folder = tmp_path / "train" / "cat" / "/".join("ab"[:depth])
    folder.mkdir(parents=True)
    (folder / "linked").symlink_to(outside)
    (folder / "file.png").symlink_to(image)
    # Another way to the same folder adds nothing.
    (folder / "second").symlink_to(outside / "inner")
    found = class_files(tmp_path / "train")
    assert found.paths == (folder / "file.png", folder / "linked" / "inner" / "1.png")
    assert found.skipped.repeated == [folder / "second"]


def test_a_class_that_is_a_link_is_a_class(tmp_path: Path) -> None:
    _touch(tmp_path / "cats" / "1.png")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "cat").symlink_to(tmp_path / "cats")
    found = class_files(tmp_path / "train")
    assert (found.classes, found.paths) == (("cat",), (tmp_path / "train" / "cat" / "1.png",))


def test_a_link_never_takes_the_images_of_another_class(tmp_path: Path) -> None:
    _touch(tmp_path / "ant" / "1.png")
    _touch(tmp_path / "bee" / "deep" / "2.png")
    (tmp_path / "ant" / "link").symlink_to(tmp_path / "bee" / "deep")
    found = class_files(tmp_path)
    assert [(label, path.name) for label, path in zip(found.labels, found.paths, strict=True)] == [
        (0, "1.png"),
        (1, "2.png"),
    ]


@pytest.mark.parametrize("target", ["cat", "."])
def test_two_classes_of_one_folder_are_refused(tmp_path: Path, target: str) -> None:
    _touch(tmp_path / "cat" / "1.png")
    (tmp_path / "tac").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match=r"tac is a link to the folder of another class"):
        class_files(tmp_path)


_BOTH = [
    (unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    for name in ("é", "Ångström", "señal", "가")
]


@pytest.mark.parametrize(("composed", "apart"), _BOTH)
def test_classes_are_compared_in_composed_form(tmp_path: Path, composed: str, apart: str) -> None:
    for part, name in (("train", apart), ("test", composed)):
        _touch(tmp_path / part / name / "1.png")
    check_same_classes(tmp_path / "train", tmp_path / "test")
    assert class_names(tmp_path / "train") == class_names(tmp_path / "test") == (composed,)
    # Within a split the two would be one class in two folders.
    _touch(tmp_path / "train" / composed / "1.png")
    with pytest.raises(DataError, match="holds two folders whose names look equal") as caught:
        class_files(tmp_path / "train")
    assert ascii(composed)[1:-1] in str(caught.value)
    assert ascii(apart)[1:-1] in str(caught.value)


def _broken_link(root: Path) -> None:
    (root / "cat" / "2.png").symlink_to(root / "gone.png")


def _link_to_itself(root: Path) -> None:
    (root / "cat" / "2.png").symlink_to(root / "cat" / "2.png")


def _broken_class(root: Path) -> None:
    (root / "dog").symlink_to(root / "gone")


def _empty_class(root: Path) -> None:
    (root / "dog").mkdir()


def _class_of_clutter(root: Path) -> None:
    _touch(root / "dog" / "notes.txt")
    _touch(root / "dog" / ".x.png")


def _name_of_no_text(root: Path) -> None:
    (Path(os.fsdecode(os.fsencode(root) + b"/d\xf6g"))).mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_broken_link, r"cat/2\.png is a broken link to .*gone\.png; mend or remove it"),
        (_link_to_itself, r"cat/2\.png is a broken link to"),
        (_broken_class, r"dog is a broken link to .*gone; mend or remove it"),
        (_empty_class, r"dog holds no images \(files \.npy, or pictures such as \.jpg and \.png\)$"),
        (_class_of_clutter, r"dog holds no images .*; 2 of its files or folders were skipped, e\.g\. \.x\.png"),
        (_name_of_no_text, r"the name of the folder .* is no valid UTF-8; rename it"),
    ],
)
def test_what_cannot_be_meant_is_an_error_of_one_line(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    _touch(tmp_path / "cat" / "1.png")
    spoil(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        class_files(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = _touch(tmp_path / "train")
    with pytest.raises(
        DataError, match=r"train is a file, and a folder is expected; images belong in ROOT/train/CLASS"
    ):
        class_files(path)


@pytest.mark.parametrize("at", ["", "cat", "cat/sub"])
def test_a_folder_that_may_not_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    _touch(tmp_path / "cat" / "sub" / "1.png")
    really = os.scandir

    def refuse(path: Path) -> object:
        if path == tmp_path / at:
            raise PermissionError(13, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        DataError, match=r"cannot read the folder .*: Permission denied; mend its permissions"
    ) as caught:
        class_files(tmp_path)
    assert str(tmp_path / at) in str(caught.value)


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    _touch(tmp_path / "cat" / "1.png")
    os.mkfifo(tmp_path / "cat" / "2.png")
    found = class_files(tmp_path)
    assert found.paths == (tmp_path / "cat" / "1.png",)
    assert found.skipped.others == [tmp_path / "cat" / "2.png"]


def test_all_files_are_those_behind_links_too_each_once(tmp_path: Path) -> None:
    _touch(tmp_path / "elsewhere" / "1.png")
    root = tmp_path / "root"
    kept = [_touch(root / "a" / "1.txt"), _touch(root / "2.png")]
    _touch(root / ".cache" / "3.png")
    (root / "a" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "loop").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    assert sorted(all_files(root)) == sorted([*kept, root / "a" / "link" / "1.png"])


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_probing_what_may_not_be_looked_at_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(path: Path, *, follow_symlinks: bool = True) -> object:
        raise error

    assert not is_there(tmp_path / "train")
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(DataError, match=rf"cannot read '.*train': {error.strerror}; mend its permissions or name"):
        is_there(tmp_path / "train")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "f/" * 3000])
@pytest.mark.parametrize("split", ["train", "train+validation", "test"])
def test_a_root_that_can_be_no_path_is_an_error_of_one_line(tmp_path: Path, name: str, split: SplitName) -> None:
    with pytest.raises(DataError) as caught:
        list_images("imagefolder", str(tmp_path / name), split)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_split_that_is_a_broken_link_is_never_taken_for_one_that_is_missing(tmp_path: Path, name: str) -> None:
    for part in ("train", "val", "test"):
        if part != name:
            _touch(tmp_path / part / "cat" / "1.png")
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=rf"{name} is a broken link to .*gone; mend or remove it"):
        list_images("imagefolder", str(tmp_path), "train+validation")


def test_an_image_is_there_once_however_many_links_name_it(tmp_path: Path) -> None:
    cat, dog = tmp_path / "train" / "cat", tmp_path / "train" / "dog"
    real = [_touch(cat / "0.png"), _touch(cat / "1.png"), _touch(dog / "0.png")]
    elsewhere = _touch(tmp_path / "elsewhere.png")
    (cat / "again.png").symlink_to(real[0])
    (dog / "another.png").symlink_to(real[1])
    (cat / "link.png").symlink_to(elsewhere)
    (dog / "link.png").symlink_to(elsewhere)
    found = class_files(tmp_path / "train")
    assert sorted(found.paths) == sorted([*real, cat / "link.png"])
    assert sorted(found.skipped.repeated) == [cat / "again.png", dog / "another.png", dog / "link.png"]


@pytest.mark.parametrize("left", [[], [".hidden/1.png"], ["notes.txt"], ["@eaDir/1.png"]])
def test_a_folder_of_test_images_that_holds_no_class_matters_only_to_who_asks_for_it(
    tmp_path: Path, left: list[str]
) -> None:
    _touch(tmp_path / "train" / "a" / "1.png")
    (tmp_path / "test").mkdir()
    for name in left:
        _touch(tmp_path / "test" / name)
    assert len(list_images("imagefolder", str(tmp_path), "train")) == 1
    with pytest.raises(DataError, match="is empty: it holds no CLASS folders"):
        list_images("imagefolder", str(tmp_path), "test")


def test_images_that_have_moved_are_no_missing_test_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder") as caught:
        list_images("imagefolder", str(tmp_path / "gone"), "test")
    assert "--test" not in str(caught.value)
