"""How the samples of a page are laid out and compressed in the TIFF that is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from denoise_se.page import Page
from denoise_se.tiff_layout import (
    ASSOCIATED,
    DEFLATE,
    LOSSLESS,
    MIN_IS_WHITE,
    NO_COMPRESSION,
    PACKBITS,
    UNASSOCIATED,
    WITH_PREDICTOR,
    TiffCoding,
)

HORIZONTAL, FLOATING_POINT = 2, 3
STRIP_BYTES = 1 << 18

Rows = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class TiffStorage:
    """shape: `(H, W)` or `(H, W, S)`; dtype: with the file's byte order; extra: the meaning of the sample beyond the
    colours; rows: of a strip or of a tile; tile: (length, width) or None; the others are TIFF's numbers."""

    shape: tuple[int, ...]
    dtype: np.dtype
    channels: int
    inverted: bool
    extra: int | None
    compression: int
    predictor: int
    tile: tuple[int, int] | None
    rows: int

    @classmethod
    def of(cls, page: Page, coding: TiffCoding | None, order: str) -> TiffStorage:
        """As the TIFF that the page came from, where that is lossless, else deflate with a predictor in strips."""
        height, width, channels = page.shape
        kept = coding is not None and coding.layout.compression in LOSSLESS
        compression = coding.layout.compression if coding and kept else DEFLATE
        predictor = 1
        if compression in WITH_PREDICTOR and not (coding and kept and coding.layout.predictor == 1):
            predictor = FLOATING_POINT if page.dtype.kind == "f" else HORIZONTAL
        tile = coding.layout.tile if coding else None
        if tile and (tile[0] % 16 or tile[1] % 16):
            tile = None
        extra = None
        if page.has_alpha:
            extra = ASSOCIATED if page.metadata.premultiplied else UNASSOCIATED
            if coding and coding.layout.extra is not None:
                extra = coding.layout.extra
        samples = channels + page.has_alpha
        return cls(
            shape=(height, width) if samples == 1 else (height, width, samples),
            dtype=page.dtype.newbyteorder(order),  # type: ignore[arg-type]
            channels=channels,
            inverted=coding is not None and coding.layout.photometric == MIN_IS_WHITE,
            extra=extra,
            compression=compression,
            predictor=predictor,
            tile=tile,
            rows=tile[0] if tile else max(1, min(height, STRIP_BYTES // (width * samples * page.dtype.itemsize))),
        )

    def options(self) -> dict[str, Any]:
        """For tifffile's writer."""
        options: dict[str, Any] = {
            "photometric": "rgb" if self.channels == 3 else "miniswhite" if self.inverted else "minisblack",
            "compression": None if self.compression == NO_COMPRESSION else self.compression,
            "predictor": self.predictor if self.predictor != 1 else None,
            "planarconfig": "contig" if len(self.shape) == 3 else None,
        }
        options |= {"tile": self.tile} if self.tile else {"rowsperstrip": self.rows}
        return options if self.extra is None else options | {"extrasamples": [self.extra]}

    def segments(self, bands: Iterator[Rows]) -> Iterator[bytes]:
        """The page's strips or tiles as they lie in the file, from as many bands as it takes."""
        height, width = self.shape[:2]
        held = np.empty((0, width, 1 if len(self.shape) == 2 else self.shape[2]), self.dtype.newbyteorder("="))
        done = 0  # rows that have been encoded
        while done < height:
            held = np.concatenate([held, self._stored(*next(bands))])
            last = done + len(held) == height
            whole = len(held) if last else len(held) // self.rows * self.rows
            for start in range(0, whole, self.rows):
                yield from self._encoded_row(held[start : start + self.rows])
            held = held[whole:]
            done += whole

    def _encoded_row(self, rows: np.ndarray) -> Iterator[bytes]:
        if self.tile is None:
            yield self._encoded(rows)
            return
        length, width = self.tile
        for left in range(0, rows.shape[1], width):
            tile = rows[:, left : left + width]
            missing = ((0, length - tile.shape[0]), (0, width - tile.shape[1]), (0, 0))
            yield self._encoded(np.pad(tile, missing))

    def _stored(self, colours: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
        if self.inverted:
            colours = ~colours  # the largest value minus it
        return colours if alpha is None else np.dstack([colours, alpha])

    def _encoded(self, segment: np.ndarray) -> bytes:
        import tifffile

        data: Any = np.ascontiguousarray(segment, self.dtype)
        if self.predictor != 1:
            data = tifffile.TIFF.PREDICTORS[self.predictor](data, axis=-2)
        if self.compression == NO_COMPRESSION:
            return bytes(data.tobytes())
        arguments = {"axis": -2} if self.compression == PACKBITS else {}
        return bytes(tifffile.TIFF.COMPRESSORS[self.compression](data, **arguments))
