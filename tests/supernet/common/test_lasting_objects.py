import gc

import pytest

from fedpareto.supernet.common.lasting_objects import lasting_objects


@pytest.mark.parametrize("enabled", [True, False])
def test_what_is_made_in_it_is_not_looked_through_again(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        with lasting_objects():
            assert not gc.isenabled()
            made: list[list[object]] = [[] for _ in range(1000)]
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() >= len(made)
        assert not any(one is made for one in gc.get_objects())
    finally:
        gc.unfreeze()
        gc.enable()


def test_an_error_in_it_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ImportError), lasting_objects():
        raise ImportError
    assert gc.isenabled()
    gc.unfreeze()
