import numpy as np

from fedpareto.training.methods.sampling import draw_clients


def test_a_round_draws_distinct_clients_in_random_order() -> None:
    generator = np.random.default_rng(0)
    rounds = [draw_clients(range(5), 3, generator) for _ in range(300)]
    assert all(len(drawn) == len(set(drawn)) == 3 and set(drawn) <= set(range(5)) for drawn in rounds)
    assert any(drawn != sorted(drawn) for drawn in rounds)
    counts = np.bincount(np.concatenate(rounds), minlength=5)
    assert counts.min() > 140
    assert counts.max() < 220
    assert all(type(client) is int for drawn in rounds for client in drawn)


def test_the_draw_is_the_generators() -> None:
    first, again, other = (draw_clients(range(50), 3, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_all_clients_may_train_every_round() -> None:
    assert sorted(draw_clients(range(5), 5, np.random.default_rng(0))) == list(range(5))


def test_clients_that_are_away_are_not_drawn_and_fewer_may_be_there_than_are_wanted() -> None:
    assert set(draw_clients([1, 4, 7, 9], 3, np.random.default_rng(0))) <= {1, 4, 7, 9}
    assert sorted(draw_clients([4, 7], 3, np.random.default_rng(0))) == [4, 7]
