"""Where the tests, and what they test, lie."""

import tomllib
from pathlib import Path
from typing import Any

import fedpareto

#: The checkout that holds these tests.
ROOT = Path(__file__).parents[2]

#: What is put on the path for another process to import the packages that are tested.
IMPORTED_FROM = Path(str(fedpareto.__file__)).parents[1]

#: How the packages are built and installed.
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
