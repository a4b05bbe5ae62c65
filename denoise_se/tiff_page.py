"""One page of a TIFF: its samples as the pixels that are worked on, and its tags as metadata."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from denoise_se.exif import dpi as exif_dpi
from denoise_se.image import MOST_FAR_OUT, FormatError, Image, Metadata, coarse, far_out
from denoise_se.nonfinite import replaced
from denoise_se.tiff_layout import ASSOCIATED, CMYK, MIN_IS_WHITE, PALETTE, TiffCoding, split_tags
from denoise_se.tiff_segments import TiffSegments
from denoise_se.tiff_tags import (
    CHILD_POINTERS,
    COLOR_MAP,
    ICC,
    IMAGE_DESCRIPTION,
    PHOTOSHOP_LAYERS,
    XMP,
    Directory,
    Tag,
    TagFile,
    built_file,
)

# the type of the samples in OME's description of an image, and of how many bits they have use
OME_TYPE = re.compile(rb'(<(?:\w+:)?Pixels\b[^>]*?\sType=")[^"]*"')
OME_BITS = re.compile(rb'(<(?:\w+:)?Pixels\b[^>]*?)\sSignificantBits="[^"]*"')
# float pages are searched for NaN and infinity in blocks of about so many pixels, which memory bounds, with a margin
MENDED_PIXELS = 1 << 22
MENDED_MARGIN = 64
ASCII = 2  # TIFF's type of text
KINDS = {"u": "unsigned integer", "i": "signed integer", "f": "float"}


class TiffPage:
    """See `Page`. Palette, CMYK with a profile, samples of other sizes than 8 and 16 bits, signed ones, and float16 and
    float64 are converted with a notice; NaN and infinity are replaced by a local value. Grey that is stored as 0 =
    white is turned round, and turned back when it is written.

    subfile_type: TIFF's NewSubfileType. first: whether the descriptive tags belong to this image.
    """

    format = "tiff"

    def __init__(
        self, tag_file: TagFile, directory: Directory, segments: TiffSegments, subfile_type: int, *, first: bool = True
    ) -> None:
        self.tag_file, self.directory, self.segments = tag_file, directory, segments
        self.layout = layout = segments.layout
        self.dtype = segments.dtype
        self._notices: list[str] = []
        self._mended: tuple[int, np.ndarray] | None = None
        self._replaced: dict[int, int] = {}  # non-finite pixels by block of rows
        self._coarse = False
        self._far_out: dict[int, tuple[int, int]] = {}  # values far outside of 0 to 1, and all, by block of rows
        tags = directory.tags
        self.icc = tags[ICC].data if ICC in tags else None
        if layout.photometric == PALETTE:
            self.add_notice("palette image written as RGB")
        elif layout.photometric == CMYK:
            # converts one pixel, to know the profile and that it can be used
            _, self.icc = _rgb_of_cmyk(np.zeros((1, 1, 4), np.uint8), self.icc)
            self.add_notice("CMYK image written as sRGB, converted through its colour profile")
        elif layout.bits not in (8, 16) and not layout.as_float:
            self.add_notice(f"{layout.bits}-bit samples written as {8 if layout.bits < 8 else 16}-bit")
        elif layout.as_float and (layout.kind, layout.bits) != ("f", 32):
            self.add_notice(f"{layout.bits}-bit {KINDS[layout.kind]} samples written as 32-bit float")
        if PHOTOSHOP_LAYERS in tags:
            self.add_notice("Photoshop layers not kept")
        if CHILD_POINTERS & tags.keys() - directory.children.keys():
            self.add_notice("damaged EXIF not kept")
        described, kept = split_tags(directory)
        if layout.as_float and IMAGE_DESCRIPTION in described.tags:
            described.tags[IMAGE_DESCRIPTION] = _of_floats(described.tags[IMAGE_DESCRIPTION])
        exif = built_file(described, tag_file.order) if described.tags or described.children else None
        further = tuple(sorted(kept.items())) if first else ()
        self.metadata = Metadata(
            exif=exif if first else None,
            xmp=tags[XMP].data if XMP in tags else None,
            icc=self.icc,
            dpi=exif_dpi(exif),
            premultiplied=layout.extra == ASSOCIATED,
            coding=TiffCoding(layout, tag_file.order, tag_file.big, further, subfile_type),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.layout.height, self.layout.width, self.layout.channels

    @property
    def has_alpha(self) -> bool:
        return self.layout.extra is not None

    @property
    def notices(self) -> tuple[str, ...]:
        found = list(self._notices)
        if count := sum(self._replaced.values()):
            found.append(f"{count:,} non-finite pixels (NaN or infinite) replaced by the median of their neighbours")
        if self._coarse:
            found.append("its values are larger than 32-bit floats can tell apart well: subtract an offset first")
        if self._far_out:
            far, values = (sum(numbers) for numbers in zip(*self._far_out.values(), strict=True))
            if far > MOST_FAR_OUT * values:
                found.append(
                    f"{far / values:.0%} of its float values are far outside of 0 to 1; sigma and PSNR take 1 for white"
                )
        return tuple(found)

    def add_notice(self, text: str) -> None:
        self._notices.append(text)

    def rows(self, start: int, stop: int) -> np.ndarray:
        samples = self._samples(start, stop)
        layout = self.layout
        colours = samples[..., : layout.samples - self.has_alpha]
        if layout.photometric == PALETTE:
            return _looked_up(self.tag_file, self.directory, colours[..., 0])
        if layout.photometric == CMYK:
            return _rgb_of_cmyk(colours, self.directory.tags[ICC].data)[0]
        if layout.bits not in (8, 16) and not layout.as_float:
            full = 255 if layout.bits < 8 else 65535
            largest = (1 << layout.bits) - 1
            colours = ((colours.astype(np.uint32) * full + largest // 2) // largest).astype(self.dtype)
        if layout.photometric == MIN_IS_WHITE:
            colours = ~colours  # the largest value minus it
        return colours

    def alpha(self, start: int, stop: int) -> np.ndarray | None:
        return self._samples(start, stop)[..., -1] if self.has_alpha else None

    def image(self) -> Image:
        height = self.layout.height
        colours, alpha = self.rows(0, height), self.alpha(0, height)
        colours = np.ascontiguousarray(colours)
        alpha = None if alpha is None else np.ascontiguousarray(alpha)
        return Image(colours, alpha, self.format, self.metadata, self.notices)

    def _samples(self, start: int, stop: int) -> np.ndarray:
        if not self.layout.as_float or start == stop:
            return self.segments.rows(start, stop)
        step = max(1, MENDED_PIXELS // self.layout.width)
        blocks = []
        # whole blocks, so that what is found does not depend on the rows that are asked for
        for number in range(start // step, -(-stop // step)):
            block = self._mended_block(number, step)
            blocks.append(block[max(start - number * step, 0) : stop - number * step])
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _mended_block(self, number: int, step: int) -> np.ndarray:
        """Rows from number * step on without NaN and infinity."""
        if self._mended is not None and self._mended[0] == number:
            return self._mended[1]
        self._mended = None
        first, last = number * step, min((number + 1) * step, self.layout.height)
        above, below = max(0, first - MENDED_MARGIN), min(last + MENDED_MARGIN, self.layout.height)
        raw = self.segments.rows(above, below)
        inner = slice(first - above, last - above)
        if self.layout.bits >= 32 and (self.layout.kind, self.layout.bits) != ("f", 32):
            self._coarse = self._coarse or coarse(raw)
        try:
            mended = replaced(raw)[0][inner]
        except ValueError as error:
            raise FormatError(
                f"has no finite value (all NaN or infinite) in one of its channels from row {above:,} to {below:,}"
            ) from error
        self._replaced[number] = int((~np.isfinite(raw[inner])).any(axis=2).sum())
        colours = mended[..., : self.layout.samples - self.has_alpha]
        self._far_out[number] = far_out(colours), colours.size
        self._mended = (number, mended)
        return mended


def _of_floats(description: Tag) -> Tag:
    """The description of samples that are written as 32-bit floats: OME-TIFF's names their type."""
    data = OME_BITS.sub(rb"\1", OME_TYPE.sub(rb'\1float"', description.data))
    return replace(description, count=len(data), data=data) if description.type == ASCII else description


def _looked_up(tag_file: TagFile, directory: Directory, indices: np.ndarray) -> np.ndarray:
    """`[H, W, 3]` uint8. Old writers gave 8-bit colours where 16 bits are due."""
    values = np.array(tag_file.values(directory.tags[COLOR_MAP])) if COLOR_MAP in directory.tags else np.zeros(0)
    if values.size == 0 or values.size % 3 or int(indices.max(initial=0)) >= values.size // 3:
        raise FormatError("is damaged: its palette is missing or too short")
    if values.max() > 255:
        values //= 256
    return np.ascontiguousarray(values.reshape(3, -1).T.astype(np.uint8)[indices])


def _rgb_of_cmyk(inks: np.ndarray, icc: bytes | None) -> tuple[np.ndarray, bytes]:
    import PIL.Image

    from denoise_se.cmyk import srgb

    height, width = inks.shape[:2]
    return srgb(PIL.Image.frombuffer("CMYK", (width, height), inks, "raw", "CMYK", 0, 1), icc)
