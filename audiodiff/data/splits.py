"""Splits of corpora that have no official one, by rules that give the same split on every machine.

Names are ranked by the SHA256 of the name, which is as good as shuffling them and needs no seed. Of the n names of
a group the first n / 20 (rounded up) are dev, the next as many test, the rest train; a group of fewer than three is
train. Adding files therefore moves few of the others, and taking the corpus elsewhere moves none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

RULE = "ranked by the SHA256 of the name, the first twentieth is dev, the second test, the rest train"
_SHARE = 20

# Names of folders and columns that people give the splits.
NAMES = {
    "train": "train", "training": "train", "dev": "dev", "valid": "dev", "val": "dev", "validation": "dev",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


def ranked(groups: Mapping[str, str]) -> dict[str, str]:
    """Returns the split of every name, ranked within its group.

    Args:
        groups: the group of every name; what should be in all splits alike has a group of its own.
    """
    members: dict[str, list[str]] = {}
    for name, group in groups.items():
        members.setdefault(group, []).append(name)
    splits: dict[str, str] = {}
    for names in members.values():
        names.sort(key=_rank)
        held_out = -(-len(names) // _SHARE) if len(names) >= 3 else 0
        for place, name in enumerate(names):
            splits[name] = "dev" if place < held_out else "test" if place < 2 * held_out else "train"
    return splits


def _rank(name: str) -> bytes:
    # surrogateescape: file names need not be valid UTF-8.
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
