"""The strips or tiles of one TIFF page, decoded by rows of the image; checked before tifffile sees them."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from denoise_se import jpeg_file
from denoise_se.image import FormatError
from denoise_se.lzw import check_lzw
from denoise_se.tiff_layout import JPEG, JPEG_EOI, LZW, NO_COMPRESSION, TiffLayout

JPEG_BLOCK = 16
MSB_FIRST = 1


class TiffSegments:
    """Samples `[H, W, S]` as they are stored, in the machine's byte order, read by rows.

    page: tifffile's page. skipped: bytes from the data of the page to that of this image, for ImageJ's stacks, which
    have one directory for all their images. Raises FormatError when the file cannot hold what the tags claim.
    """

    def __init__(self, stream: BinaryIO, layout: TiffLayout, page: Any, skipped: int = 0) -> None:
        self.stream, self.layout, self.page = stream, layout, page
        self.dtype = np.dtype(np.float32 if layout.as_float else np.uint16 if layout.bits > 8 else np.uint8)
        if (page.imagelength, page.imagewidth, page.samplesperpixel) != (layout.height, layout.width, layout.samples):
            raise FormatError("is damaged: its tags contradict each other")
        count = math.prod(page.chunked)
        self.offsets = [offset + skipped for offset in page.dataoffsets[:count]]
        self.counts = page.databytecounts[:count]
        if len(self.offsets) != count or len(self.counts) != count or not (min(self.offsets) > 0 < min(self.counts)):
            raise FormatError("is truncated or damaged: some of its strips or tiles are missing")
        size = stream.seek(0, 2)
        if max(offset + length for offset, length in zip(self.offsets, self.counts, strict=True)) > size:
            raise FormatError("is truncated: it ends before the end of the image")
        # rows and columns of segments, in each plane
        self.segment_rows = layout.tile[0] if layout.tile else min(page.rowsperstrip, layout.height)
        self.across = -(-layout.width // layout.tile[1]) if layout.tile else 1
        self.down = -(-layout.height // self.segment_rows)
        self.planes = count // (self.across * self.down)
        self.plain = (
            layout.compression == NO_COMPRESSION
            and layout.predictor == 1
            and layout.tile is None
            and layout.bits in (8, 16, 32, 64)
            and page.fillorder == MSB_FIRST
        )
        self.held: tuple[int, np.ndarray] | None = None

    @property
    def _width_of_segment(self) -> int:
        return self.layout.tile[1] if self.layout.tile else self.layout.width

    def rows(self, start: int, stop: int) -> np.ndarray:
        """`[stop - start, W, S]`, of which strips and tiles that stick out at either end are decoded too."""
        with np.errstate(over="ignore"):  # what is too large for 32 bits becomes infinite, which is told
            return self._rows(start, stop)

    def _rows(self, start: int, stop: int) -> np.ndarray:
        block = np.empty((stop - start, self.layout.width, self.layout.samples), self.dtype)
        if self.plain:
            self._read_plain(block, start)
            return block
        for row in range(start // self.segment_rows, -(-stop // self.segment_rows)):
            first = row * self.segment_rows
            decoded = self._decoded(row)
            begin, end = max(start, first), min(stop, first + len(decoded))
            block[begin - start : end - start] = decoded[begin - first : end - first]
        return block

    def _read_plain(self, block: np.ndarray, start: int) -> None:
        """Reads just these rows out of uncompressed strips, which may be as large as the image."""
        layout = self.layout
        samples = layout.samples // self.planes
        stored = np.dtype(f"{self.page.parent.byteorder}{layout.kind}{layout.bits // 8}")
        row_bytes = layout.width * samples * stored.itemsize
        stop = start + len(block)
        for plane in range(self.planes):
            row = start
            while row < stop:
                strip = row // self.segment_rows
                first = strip * self.segment_rows
                end = min(stop, first + self.segment_rows)
                index = plane * self.down + strip
                if (end - first) * row_bytes > self.counts[index]:
                    raise FormatError("is truncated or damaged: a strip is too short")
                self.stream.seek(self.offsets[index] + (row - first) * row_bytes)
                data = self.stream.read((end - row) * row_bytes)
                values = np.frombuffer(data, stored).reshape(end - row, layout.width, samples)
                block[row - start : end - start, :, plane * samples : (plane + 1) * samples] = values
                row = end

    def _decoded(self, row: int) -> np.ndarray:
        """One row of segments `[h, W, S]`; the last one is kept, as bands of rows overlap."""
        if self.held is not None and self.held[0] == row:
            return self.held[1]
        self.held = None
        layout = self.layout
        height = min(self.segment_rows, layout.height - row * self.segment_rows)
        block = np.empty((height, layout.width, layout.samples), self.dtype)
        for plane in range(self.planes):
            for column in range(self.across):
                index = (plane * self.down + row) * self.across + column
                data = self._segment(index)
                left = column * layout.tile[1] if layout.tile else 0
                target = block[:, left : left + data.shape[1]]
                data = data[:height, : target.shape[1]]
                if len(data) < height or data.shape[1] < min(layout.width - left, self._width_of_segment):
                    raise FormatError("is damaged: a strip or tile is too small")
                if self.planes == 1:
                    target[...] = data
                else:
                    target[..., plane] = data[..., 0]
        self.held = (row, block)
        return block

    def _segment(self, index: int) -> np.ndarray:
        """`[h, w, samples of a plane]`."""
        self.stream.seek(self.offsets[index])
        data = self.stream.read(self.counts[index])
        options = {}
        if self.layout.compression == JPEG:
            self._check_jpeg(data)
            options = {"jpegtables": self.page.jpegtables, "jpegheader": self.page.jpegheader}
        elif self.layout.compression == LZW:
            check_lzw(data)
        segment: np.ndarray = self.page.decode(data, index, **options)[0][0]
        return segment

    def _check_jpeg(self, data: bytes) -> None:
        """Refuses what is cut, which libjpeg would fill up with grey, and what claims more pixels than there are."""
        if JPEG_EOI not in data[-16:]:
            raise FormatError("is truncated or damaged: a JPEG strip or tile is cut")
        header = jpeg_file.probe(BytesIO(data))
        # the last strip may be coded in whole blocks
        most = self._width_of_segment * (self.segment_rows if self.layout.tile else self.segment_rows + JPEG_BLOCK - 1)
        if header.width * header.height > most:
            raise FormatError("is damaged: a JPEG strip or tile claims more pixels than there are")
