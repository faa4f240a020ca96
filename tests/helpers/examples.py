"""How many examples property tests draw: a third in the quick suite, all of them where FEDPARETO_EXAMPLES is all."""

import os

#: Whether every property is tested with all its examples.
ALL = os.environ.get("FEDPARETO_EXAMPLES") == "all"

#: As many are drawn of a property of few examples in the quick suite too.
_FEW = 10


def drawn(examples: int) -> int:
    """The examples to draw of a property that has so many."""
    return examples if ALL else max(min(examples, _FEW), examples // 3)
