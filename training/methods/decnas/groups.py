"""Groups of clients, one for each candidate, alike in size and in the labels of their images.

The rule is this project's own. Clients are placed one after another: first those that can run the fewest candidates,
and among equal ones those with the most images. Each joins a group with the fewest clients among those it may join.
Among these it joins the group with the fewest images of the client's own labels (Σ_class client·group), and among equal
ones the group with the fewest images. That placement adds least to Σ_group |group − equal share|², the squared distance
of the groups' label histograms from equal shares of the global one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedpareto.supernet.arrays import IntArray

Groups = list[list[int]]


def placed(groups: Sequence[Sequence[int]], free: Sequence[int], labels: IntArray, runs: NDArray[np.bool_]) -> Groups:
    """Return the groups with the ``free`` clients placed into them; one that can run no group's candidate stays out.

    Args:
        groups: the clients of every group so far.
        free: clients to place.
        labels: every client's number of images of each class, shape (clients, classes).
        runs: true where a client can run a group's candidate, shape (clients, groups).
    """
    result = [list(group) for group in groups]
    held = np.array([labels[group].sum(axis=0) for group in result])
    for client in _in_order(free, labels, runs):
        able = np.flatnonzero(runs[client])
        if not len(able):
            continue
        fewest = min(len(result[group]) for group in able)
        chosen = min(
            (int(group) for group in able if len(result[group]) == fewest),
            key=lambda group: (int(held[group] @ labels[client]), int(held[group].sum())),
        )
        result[chosen].append(client)
        held[chosen] += labels[client]
    return _without_empty(result, runs)


def _in_order(free: Sequence[int], labels: IntArray, runs: NDArray[np.bool_]) -> list[int]:
    return sorted(free, key=lambda client: (int(runs[client].sum()), -int(labels[client].sum()), client))


def _without_empty(groups: Groups, runs: NDArray[np.bool_]) -> Groups:
    """Give every empty group a client that can run its candidate, from the largest group that has one to spare."""
    for group, members in enumerate(groups):
        if members:
            continue
        for other in sorted(range(len(groups)), key=lambda index: -len(groups[index])):
            able = [client for client in groups[other] if runs[client, group]]
            if able and len(groups[other]) > 1:
                groups[other].remove(able[-1])
                members.append(able[-1])
                break
    return groups


def distance(members: Sequence[int], labels: IntArray) -> float:
    """Return half the L1 distance between the shares of a group's labels and those of all clients: from 0 to 1."""
    own, everywhere = labels[list(members)].sum(axis=0), labels.sum(axis=0)
    return float(np.abs(own / own.sum() - everywhere / everywhere.sum()).sum() / 2)
