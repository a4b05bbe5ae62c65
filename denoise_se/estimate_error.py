"""How far PSNR estimated without the clean image lies from the true one, over a test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from denoise_se.evaluation_scores import ImageScore


@dataclass(frozen=True)
class EstimateError:
    """Over the images of one test set, noise and method: the error in dB is the estimate less the truth.

    told: the level that was told, in 8-bit units, or None when it was estimated too. worst: the largest error either
    way. covered: how many lie within their margin. All None where no image had an estimate; the others had a reason.
    """

    test_set: str
    noise: str
    method: str
    told: float | None
    images: int
    estimates: int
    mean: float | None
    median_absolute: float | None
    worst: float | None
    covered: int


def estimate_errors(scores: Sequence[ImageScore]) -> list[EstimateError]:
    """One for each test set, noise and method with estimates, in the order measured."""
    groups: dict[tuple[str, str, str, float | None], list[ImageScore]] = {}
    for score in scores:
        if score.estimate is not None:
            groups.setdefault((score.test_set, score.noise, score.method, score.sigma), []).append(score)
    return [_error(key, group) for key, group in groups.items()]


def _error(key: tuple[str, str, str, float | None], group: list[ImageScore]) -> EstimateError:
    errors, covered = [], 0
    for score in group:
        if score.estimate is not None and score.estimate.psnr is not None:
            errors.append(score.estimate.psnr - score.psnr)
            covered += abs(errors[-1]) <= (score.estimate.margin or 0)
    return EstimateError(
        *key,
        images=len(group),
        estimates=len(errors),
        mean=fmean(errors) if errors else None,
        median_absolute=median(map(abs, errors)) if errors else None,
        worst=max(errors, key=abs) if errors else None,
        covered=covered,
    )
