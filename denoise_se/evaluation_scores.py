"""What measuring denoisers gives: a score for each image, and their means."""

from __future__ import annotations

from dataclasses import dataclass

from denoise_se.crops import Crop
from denoise_se.metrics import mean_finite
from denoise_se.quality import QualityEstimate


@dataclass(frozen=True)
class ImageScore:
    """One image under one noise by one method.

    `noise` is the spec, or "real" for pairs; `sigma` what the methods were told of it, and `mean_absolute_error`, both
    in 8-bit units; `seconds` is of the method's call alone. `estimate` is of the PSNR, made without the clean image,
    where that was asked for.
    """

    test_set: str
    channels: int
    noise: str
    sigma: float | None
    method: str
    image: str
    width: int
    height: int
    psnr: float
    ssim: float | None
    mean_absolute_error: float
    seconds: float
    estimate: QualityEstimate | None = None


@dataclass(frozen=True)
class MeanScore:
    """The mean over a test set; PSNR of identical images and SSIM of tiny ones are left out, None when none is left.

    `sigma` is what the methods were told, None when nothing or not the same for all images.
    """

    test_set: str
    channels: int
    noise: str
    method: str
    sigma: float | None
    images: int
    psnr: float | None
    ssim: float | None
    mean_absolute_error: float
    seconds_per_megapixel: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured. `notes` says in words what was left out, `failures` which images could not be measured
    and why; `threads` and `machine` go with the times."""

    scores: tuple[ImageScore, ...]
    crops: tuple[Crop, ...]
    notes: tuple[str, ...]
    failures: tuple[str, ...]
    threads: int
    machine: str

    def remarks(self) -> tuple[str, ...]:
        """The notes, and the failures as such."""
        return (*self.notes, *(f"not measured: {failure}" for failure in self.failures))

    def means(self) -> list[MeanScore]:
        """One row for each test set, channels, noise and method, in the order measured; the noisy images come first."""
        groups: dict[tuple[str, int, str, str], list[ImageScore]] = {}
        for score in self.scores:
            groups.setdefault((score.test_set, score.channels, score.noise, score.method), []).append(score)
        return [
            MeanScore(
                *key,
                sigma=group[0].sigma if len({score.sigma for score in group}) == 1 else None,
                images=len(group),
                psnr=mean_finite(score.psnr for score in group),
                ssim=mean_finite(score.ssim for score in group),
                mean_absolute_error=sum(score.mean_absolute_error for score in group) / len(group),
                seconds_per_megapixel=1e6 * sum(s.seconds for s in group) / sum(s.width * s.height for s in group),
            )
            for key, group in groups.items()
        ]
