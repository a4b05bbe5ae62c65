"""Which file of a noisy and of a clean folder belong together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from denoise_se.image_folder import image_files


@dataclass(frozen=True)
class PairedFiles:
    """The folders of one training set; `noisy` is None for clean images that get synthetic noise.

    `words`, in lower case, tell noisy from clean names where both lie in one folder: ("real", "mean").
    """

    noisy: Path | None
    clean: Path
    words: tuple[str, str] | None = None


def words_of(stem: str) -> list[str]:
    """The parts of a name, in lower case."""
    return [word for word in re.split(r"[-_. ]+", stem.lower()) if word]


def parted(stem: str, words: tuple[str, str]) -> tuple[str, str] | None:
    """Which of two words a name holds, the last one if it holds both, and the rest of the name; None for neither."""
    found = [part for part in re.finditer(r"[^-_. ]+", stem) if part.group().lower() in words]
    if not found:
        return None
    return found[-1].group().lower(), stem[: found[-1].start()].rstrip("-_. ") + stem[found[-1].end() :]


def match_pairs(
    noisy: Path, clean: Path, words: tuple[str, str] | None = None
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Files of both folders with the same relative path and stem; and a line for each without a partner.

    Of each folder those count whose stems hold its word of `words`; the rest of the stem is compared.
    """

    def by_stem(folder: Path, problems: list[str], word: str | None) -> dict[Path, Path]:
        found: dict[Path, Path] = {}
        for file in image_files(folder):
            stem = file.stem
            if words is not None:
                own, stem = parted(stem, words) or ("", "")  # perhaps nothing else, as in 0001/noisy.png
                if own != word:
                    continue
            key = file.relative_to(folder).parent / stem
            if key in found:
                problems.append(f"{file}: {found[key].name} has the same stem; rename one of them")
            found.setdefault(key, file)
        return found

    problems: list[str] = []
    noisy_word, clean_word = words or (None, None)
    noisy_files, clean_files = by_stem(noisy, problems, noisy_word), by_stem(clean, problems, clean_word)
    problems += [f"{f}: no partner of this name in {clean}" for k, f in noisy_files.items() if k not in clean_files]
    problems += [f"{f}: no partner of this name in {noisy}" for k, f in clean_files.items() if k not in noisy_files]
    return [(noisy_files[key], clean_files[key]) for key in noisy_files if key in clean_files], problems
