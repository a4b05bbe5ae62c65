"""An image as a file holds it: native pixels, alpha, and whatever a writer needs to give the rest back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from denoise_se import exif as exif_block

DEPTH_OF_DTYPE = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16, np.dtype(np.float32): 32}
FAR_OUT, MOST_FAR_OUT = 0.5, 0.05  # beyond 0 to 1, and the share of the values there
COARSE = 0.01  # of the standard deviation: so far apart 32-bit floats may lie
EXACT = 2.0**24  # up to which they hold each integer, so that equal ones surely were equal


class FormatError(Exception):
    """Why these bytes cannot be read or this image cannot be written; `image_io` adds the file's name."""


class Coding:
    """What one format alone needs to write its own kind back (tables, compression, chunks); see the format modules."""

    def lost_elsewhere(self, has_profile: bool) -> tuple[str, ...]:
        """Names what another format could not take over, so that it is not lost in silence; an ICC profile is."""
        return ()


@dataclass(frozen=True)
class Metadata:
    """Everything of a file but its pixels.

    exif: the EXIF block as a TIFF structure (no "Exif" prefix), byte for byte where the format allows.
    xmp, icc: the packets as they are. dpi: horizontal and vertical pixels an inch.
    premultiplied: the colours are already multiplied by alpha (TIFF's associated alpha).
    coding: how the file was coded, for writing the same format again.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    premultiplied: bool = False
    coding: Coding | None = None

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1 (upright) to 8; 1 where there is none or it is not one of these."""
        return exif_block.orientation(self.exif)


@dataclass(frozen=True)
class Probe:
    """What the header says, before any decoding. `channels` leaves alpha out; `bit_depth` is that of the pixels read
    (8, 16 or 32 for float), so 8 for a 1-bit or palette file; `frames` counts pages or animation frames."""

    format: str
    width: int
    height: int
    channels: int
    bit_depth: int
    frames: int = 1
    alpha: bool = False


@dataclass(frozen=True)
class Image:
    """One image.

    pixels: `[H, W, C]`, C = 1 (grey) or 3 (RGB), uint8, uint16 or float32, native values; float nominally in [0, 1].
    alpha: `[H, W]` of the same dtype, or None. format: the format its file had. notices: what was converted and why.
    The pixels lie as stored; `metadata.orientation` says how they are shown.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    format: str
    metadata: Metadata = Metadata()
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] not in (1, 3) or self.pixels.dtype not in DEPTH_OF_DTYPE:
            raise ValueError(
                "pixels must be [H, W, 1 or 3] of uint8, uint16 or float32, "
                f"got {self.pixels.shape} {self.pixels.dtype}"
            )
        if self.alpha is not None and (
            self.alpha.shape != self.pixels.shape[:2] or self.alpha.dtype != self.pixels.dtype
        ):
            raise ValueError(
                f"alpha must be {self.pixels.shape[:2]} {self.pixels.dtype}, got {self.alpha.shape} {self.alpha.dtype}"
            )

    @property
    def bit_depth(self) -> int:
        """8, 16, or 32 for float."""
        return DEPTH_OF_DTYPE[self.pixels.dtype]

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def channels(self) -> int:
        """Colour channels: 1 or 3; alpha is not counted."""
        return int(self.pixels.shape[2])

    def with_pixels(self, pixels: np.ndarray) -> Image:
        """The same image with other pixels of the same shape and dtype (ValueError otherwise).

        The EXIF thumbnail is left out, since it shows the old pixels (MWG Guidelines for Handling Image Metadata,
        2010: one who changes an image updates or removes its thumbnail); the rest of EXIF stays byte for byte.
        """
        if pixels.shape != self.pixels.shape or pixels.dtype != self.pixels.dtype:
            raise ValueError(
                f"new pixels must be {self.pixels.shape} {self.pixels.dtype}, got {pixels.shape} {pixels.dtype}"
            )
        metadata = replace(self.metadata, exif=exif_block.without_thumbnail(self.metadata.exif))
        return replace(self, pixels=pixels, metadata=metadata)

    def upright(self) -> Image:
        """The image as it is shown: pixels turned by the EXIF orientation, and the tag (EXIF and XMP) reset to 1."""
        orientation, dpi = self.metadata.orientation, self.metadata.dpi
        if orientation == 1:
            return self
        metadata = replace(
            self.metadata,
            exif=exif_block.made_upright(self.metadata.exif),
            xmp=exif_block.xmp_made_upright(self.metadata.xmp),
            dpi=dpi[::-1] if dpi and exif_block.on_its_side(orientation) else dpi,
        )
        alpha = None if self.alpha is None else turned(self.alpha, orientation)
        return replace(self, pixels=turned(self.pixels, orientation), alpha=alpha, metadata=metadata)


def far_out(pixels: np.ndarray) -> int:
    """How many float values are far outside of 0 to 1."""
    return int(np.count_nonzero((pixels < -FAR_OUT) | (pixels > 1 + FAR_OUT)))


def coarse(values: np.ndarray) -> bool:
    """Whether values are so large for how much they differ that 32-bit floats can hardly tell them apart."""
    values = values[np.isfinite(values)]
    if not values.size:
        return False
    largest, spread = np.abs(values).max().astype(np.float32), values.std(dtype=np.float64)
    return bool(np.spacing(largest) > COARSE * spread and (spread > 0 or largest > EXACT))


def turned(plane: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF 2.32, 4.6.4 A: 2 mirrored, 3 half turn, 4 flipped, 5 transposed, 6 quarter turn, 7 transverse, 8 three."""
    if exif_block.on_its_side(orientation):
        plane = plane.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(plane[::rows, ::columns])
