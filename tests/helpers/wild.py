"""Text as data may hold it: markup, control characters, other scripts, quotes."""

from hypothesis import strategies as st

#: Characters that reorder what is read.
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"

#: Colours, a window title, a link, the start of a line, a bell, C1 controls, lines, an invisible mark, a broken byte.
ESCAPES = (
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x1b]8;;http://x\x1b\\",
    "\r",
    "\n",
    "\x07",
    "\x08",
    "\x9b31m",
    "\u2028",
    "\u2029",
    "\x85",
    "\ufeff",
    "\udcff",
    "\t",
    *BIDI,
)

#: What some reader takes for something else: rich's markup and emoji codes, formulas, HTML, templates, shells.
SYNTAX = (
    *("[red]x[/red]", "[/]", "[bold", ":smile:", "$x$", "$\\alpha$", "_hidden", "<script>alert(1)</script>", "-->"),
    *("{{ 1 }}", "{x}", "%s", "%(x)s", "a b", "it's", '"', "$HOME", "`date`", "\\", "|", "&amp;", "*"),
)


def wild_text(*, min_size: int = 0) -> st.SearchStrategy[str]:
    """Return texts that mix any characters with what somebody would misread."""
    pieces = st.one_of(st.text(max_size=5), st.sampled_from(ESCAPES + SYNTAX))
    return st.lists(pieces, min_size=min_size, max_size=6).map("".join)
