"""Figures for all plots, drawn so that names are shown literally and files are written whole."""

import base64
import contextlib
import html
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fedpareto.supernet.common.storage.files import replacing
from fedpareto.supernet.common.terminal.words import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def drawn(width: float, height: float) -> Iterator["Figure"]:
    """Yield a figure of so many inches on which ``$`` and the like are text, not formulas."""
    # A second of imports that only plots pay for.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"text.parse_math": False}):
        yield Figure(figsize=(width, height), layout="constrained", dpi=150)


def words(text: str) -> str:
    """Return text from data on one line, changed so that a legend shows it even if it starts with ``_``."""
    shown = printable(text)
    # matplotlib leaves labels out that start with an underscore.
    return f" {shown}" if shown.startswith("_") else shown


def legend_below(figure: "Figure", handles: Sequence[Any]) -> None:
    """Put a legend below all axes, where it hides nothing; none if nothing was drawn."""
    if handles:
        figure.legend(handles=handles, fontsize="small", loc="outside lower center", ncols=min(4, len(handles)))


def save(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of the file's suffix.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as temporary:
        write(figure, temporary, path.suffix[1:])


def notebook_html(text: str, picture: str) -> str:
    """A value as a notebook shows it: a line of text above a picture, an element of HTML."""
    return f"<div><p>{html.escape(text)}</p>{picture}</div>"


def png_element(path: Path) -> str:
    """The picture of a .png file as an element that needs no file."""
    return f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" width="640"/>'


def write(figure: "Figure", target: Path | IO[str] | IO[bytes], kind: str, **options: Any) -> None:
    """Write a figure in a format, with ``options`` of the format."""
    with warnings.catch_warnings():
        # What the font lacks is drawn as boxes, what is too long overlaps: of a name no warning would help.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(target, format=kind, **options)
