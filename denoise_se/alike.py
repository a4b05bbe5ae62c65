"""Notices of many files, of which those that are alike are counted from the fourth on."""

from __future__ import annotations

from collections.abc import Iterable

MOST_ALIKE = 3  # of one kind that are told one by one


def counted(notices: Iterable[tuple[object, str]]) -> list[str]:
    """Lines for (file, notice), kind by kind."""
    alike: dict[str, list[object]] = {}
    for source, notice in notices:
        alike.setdefault(notice, []).append(source)
    lines = []
    for notice, sources in alike.items():
        lines += [f"{source}: {notice}" for source in sources[:MOST_ALIKE]]
        if len(sources) > MOST_ALIKE:
            lines.append(f"and {len(sources) - MOST_ALIKE:,} more: {notice}")
    return lines
