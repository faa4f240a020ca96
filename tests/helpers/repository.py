"""Where the tests, and what they test, lie."""

from pathlib import Path

import fedpareto

#: The checkout that holds these tests.
ROOT = Path(__file__).parents[2]

#: What is put on the path for another process to import the packages that are tested.
IMPORTED_FROM = Path(str(fedpareto.__file__)).parents[1]
