"""Word error rate: substitutions, deletions and insertions over the words that should have been said.

The fewest edits (Levenshtein 1966) that turn what should have been said into what was heard; among those with equally
many edits the one with the most substitutions. The rate of several texts is pooled: all edits over all words. Its
interval is a percentile bootstrap over texts (Bisani & Ney 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiodiff.errors import InputError

RESAMPLES = 2000


@dataclass(frozen=True)
class WordErrors:
    """How one text was misheard, or several.

    Attributes:
        substitutions: words heard as others.
        deletions: words not heard.
        insertions: words heard that were not there.
        words: that should have been said.
    """

    substitutions: int
    deletions: int
    insertions: int
    words: int

    @property
    def total(self) -> int:
        """All errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per word; above 1 where more was heard than said."""
        return self.total / self.words

    def __add__(self, other: WordErrors) -> WordErrors:
        """Returns the errors of both."""
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )


def word_errors(said: Sequence[str], heard: Sequence[str]) -> WordErrors:
    """Returns the fewest errors that explain what was heard.

    Args:
        said: words that should have been said.
        heard: words that were.

    Raises:
        InputError: nothing should have been said, of which there is no rate.
    """
    if not said:
        raise InputError("word error rate: got a text without words, expected at least one")
    # (errors, -substitutions, deletions, insertions) of the first words of both; the smallest tuple is taken.
    row = [(j, 0, 0, j) for j in range(len(heard) + 1)]
    for i, word in enumerate(said, start=1):
        before, row = row, [(i, 0, i, 0)]
        for j, other in enumerate(heard, start=1):
            errors, substituted, deleted, inserted = before[j - 1]
            differs = int(word != other)
            replaced = (errors + differs, substituted - differs, deleted, inserted)
            errors, substituted, deleted, inserted = before[j]
            dropped = (errors + 1, substituted, deleted + 1, inserted)
            errors, substituted, deleted, inserted = row[j - 1]
            added = (errors + 1, substituted, deleted, inserted + 1)
            row.append(min(replaced, dropped, added))
    _, substituted, deleted, inserted = row[-1]
    return WordErrors(-substituted, deleted, inserted, len(said))


def pooled(errors: Sequence[WordErrors]) -> WordErrors:
    """Returns the errors of all texts together."""
    return sum(errors, WordErrors(0, 0, 0, 0))


def rate_interval(errors: Sequence[WordErrors], seed: int) -> tuple[float, float]:
    """Returns the 95 % percentile interval of the pooled rate, texts drawn with replacement.

    Args:
        errors: of each text.
        seed: of the draws.
    """
    counts = np.array([(each.total, each.words) for each in errors], dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    sums = counts[picks].sum(axis=1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return float(low), float(high)
