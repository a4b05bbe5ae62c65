"""Notices of many files, of which those that are alike are counted from the fourth on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

MOST_ALIKE = 3  # of one kind that are told one by one


class Alike:
    """Counts the notices that come; `of` what they are, in the plural, with a blank before it."""

    def __init__(self, of: str = "") -> None:
        self.of = of
        self.counts: Counter[str] = Counter()

    def is_told(self, notice: str) -> bool:
        """Whether this one is to be told by itself."""
        self.counts[notice] += 1
        return self.counts[notice] <= MOST_ALIKE

    def rest(self) -> list[str]:
        """Lines about those that were not."""
        more = ((notice, count - MOST_ALIKE) for notice, count in self.counts.items() if count > MOST_ALIKE)
        return [f"and {count:,} more{self.of}: {notice}" for notice, count in more]


def counted(notices: Iterable[tuple[object, str]]) -> list[str]:
    """Lines for all (file, notice)."""
    alike = Alike()
    return [f"{source}: {notice}" for source, notice in notices if alike.is_told(notice)] + alike.rest()
