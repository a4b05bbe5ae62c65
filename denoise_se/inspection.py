"""What a report shows of an image besides its scores, gathered while its bands pass by: pictures, noise, quality."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from denoise_se.blending import Strength
from denoise_se.denoiser import Denoiser
from denoise_se.display import shown_range
from denoise_se.level_grid import Known, held
from denoise_se.noise_estimation import estimate_noise
from denoise_se.preview import Preview, PreviewMaker
from denoise_se.quality import QualityEstimate, estimate_psnr, looks_clipped
from denoise_se.report import Row
from denoise_se.restorer import Band, Restorer
from denoise_se.samples import Sample, as_one
from denoise_se.scanlines import ArrayScanlines, Scanlines
from denoise_se.value_range import full_range


@dataclass
class Inspector:
    """What is wanted of each image of a run, and the pictures made so far, by the rows' `output`.

    picture_bytes: of an image's pictures together; None wants none. noise: the noise before and after; quality: the
    PSNR, estimated, and the noise.
    """

    picture_bytes: int | None = None
    noise: bool = False
    quality: bool = False
    previews: dict[str, Preview] = field(default_factory=dict)

    def begin(self, source: Scanlines, orientation: int = 1) -> Inspection:
        """For an image [H, W, C], shown by its EXIF orientation."""
        return Inspection(self, source, orientation)


class Inspection:
    """One image's: `add` its bands in order, then `row`."""

    def __init__(self, inspector: Inspector, source: Scanlines, orientation: int = 1) -> None:
        self.inspector = inspector
        most = inspector.picture_bytes
        self.maker = None if most is None else PreviewMaker(*source.shape, orientation, most, shown_range(source))
        self.sample = Sample(*source.shape, source.dtype) if inspector.noise or inspector.quality else None

    def add(self, band: Band) -> None:
        if self.maker is not None:
            self.maker.add(band.rows.start, band.noisy, band.clean)
        if self.sample is not None:
            self.sample.add(band.rows.start, band.noisy, band.clean)

    def row(
        self,
        row: Row,
        denoiser: Restorer,
        sigma: float | None,
        level: Known,
        strength: Strength,
    ) -> Row:
        """`row` with what was found; the pictures go to the inspector.

        sigma: what the user knows of the noise, None when it was estimated; level: what the network was given; both in
        8-bit units.
        """
        if self.maker is not None:
            self.inspector.previews[row.output] = self.maker.finish()
        if self.sample is None:
            return row
        noisy = estimate_noise(as_one(self.sample.noisy))
        clean = estimate_noise(as_one(self.sample.clean))
        row = replace(row, noise_before=round(noisy.sigma, 4), noise_after=round(clean.sigma, 4))
        if not self.inspector.quality:
            return row
        if not isinstance(denoiser, Denoiser):
            found = QualityEstimate(None, reason="a result that was kept is not computed again")
        else:
            scale = np.float32(full_range(self.sample.noisy.dtype))
            same = denoiser.for_8_bits() if self.sample.noisy.dtype == np.uint8 else denoiser
            found = estimate_psnr(
                lambda pixels: _denoised(same, pixels, level, strength),
                [window.astype(np.float32) / scale for window in self.sample.noisy],
                noisy,
                sigma=sigma,
                clipped=looks_clipped(self.sample.noisy),
            )
        return replace(
            row,
            psnr_estimated=_rounded(found.psnr),
            psnr_margin=_rounded(found.margin),
            psnr_estimated_reason=found.reason,
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _denoised(denoiser: Denoiser, pixels: np.ndarray, level: Known, strength: Strength) -> np.ndarray:
    """A window [H, W, C] of an image whose level is known."""
    source = ArrayScanlines(pixels)
    return np.concatenate([band.clean for band in denoiser.bands(source, held(level, source), strength)])
