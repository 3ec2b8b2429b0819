"""Dividing items into "train", "validation" and "test": disjoint, complete, and the same in every run."""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")

EIGHT_ONE_ONE = {"train": 0.8, "validation": 0.9, "test": 1.0}
"""Where each split ends, as a share of all items."""


def divided(keys: Sequence[str], ends: Mapping[str, float] = EIGHT_ONE_ONE, seed: int = 0) -> dict[str, list[int]]:
    """Numbers of the items of each split, ascending; items of equal key stay together.

    Keys are ordered by a hash of seed and key. So neither the items' order matters nor the version of a library, and
    another seed gives another division. Keys of more than a hundredth of the items go first, into the first split:
    elsewhere they would be most of it.
    """
    groups: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    parts: dict[str, list[int]] = {name: [] for name in ends}
    done = 0

    def order(key: str) -> tuple[bool, bytes]:
        return len(groups[key]) * 100 <= len(keys), hashlib.sha256(f"{seed} {key}".encode()).digest()

    for key in sorted(groups, key=order):
        parts[next(name for name, end in ends.items() if done < end * len(keys))] += groups[key]
        done += len(groups[key])
    return {name: sorted(part) for name, part in parts.items()}


def stratified(
    keys: Sequence[str], classes: Sequence[Hashable], ends: Mapping[str, float] = EIGHT_ONE_ONE, seed: int = 0
) -> dict[str, list[int]]:
    """As `divided`, for each class by itself: each split has the classes in equal shares. Keys are one item's only."""
    members: dict[Hashable, list[int]] = {}
    for number, kind in enumerate(classes):
        members.setdefault(kind, []).append(number)
    parts: dict[str, list[int]] = {name: [] for name in ends}
    for numbers in members.values():
        for name, part in divided([keys[number] for number in numbers], ends, seed).items():
            parts[name] += [numbers[place] for place in part]
    return {name: sorted(part) for name, part in parts.items()}


def consecutive(items: Sequence[Item], ends: Mapping[str, float]) -> dict[str, Sequence[Item]]:
    """Stretches of items whose order is a time or a place, each split after the one before it."""
    stops = [round(end * len(items)) for end in ends.values()]
    return {name: items[start:stop] for name, start, stop in zip(ends, [0, *stops], stops, strict=False)}


def last_for_test(items: Sequence[Item]) -> dict[str, Sequence[Item]]:
    """Of three or more files the last is the test, the one before it validation; fewer are a test altogether."""
    if len(items) < 3:
        return {"train": items[:0], "validation": items[:0], "test": items}
    return {"train": items[:-2], "validation": items[-2:-1], "test": items[-1:]}
