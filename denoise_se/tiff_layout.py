"""How the samples of a TIFF page lie in its file, checked against what can be read; and which tags are carried over."""

from __future__ import annotations

from dataclasses import dataclass, replace

from denoise_se.image import Coding, FormatError
from denoise_se.tiff_tags import (
    CHILD_POINTERS,
    COLOR_MAP,
    ICC,
    IMAGE_DESCRIPTION,
    ORIENTATION,
    PHOTOSHOP_LAYERS,
    RESOLUTION_UNIT,
    SUB_IFDS,
    X_RESOLUTION,
    XMP,
    Y_RESOLUTION,
    Directory,
    Tag,
    TagFile,
)

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
NO_COMPRESSION, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD = 1, 5, 7, 8, 32773, 32946, 34925, 50000
CCITT = frozenset({2, 3, 4})
LOSSLESS = frozenset({NO_COMPRESSION, LZW, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD})
WITH_PREDICTOR = LOSSLESS - {NO_COMPRESSION, PACKBITS}
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
JPEG_EOI = b"\xff\xd9"

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES = 256, 257, 258, 259, 262, 277
PREDICTOR, TILE_WIDTH, TILE_LENGTH, EXTRA_SAMPLES, SAMPLE_FORMAT, INK_SET, DEPTH = 317, 322, 323, 338, 339, 332, 32997

# EXIF 2.32 table 4 as far as it is not about how samples are stored, Windows' XP tags and the rating: the EXIF block
DESCRIPTIVE = frozenset(
    {IMAGE_DESCRIPTION, ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}
    | {271, 272, 305, 306, 315, 33432, 18246, *range(40091, 40096)}
)
# about how samples are stored, so the writer sets them; XMP, ICC and what only holds for the old pixels
STRUCTURAL = frozenset(
    {254, 255, *range(256, 267), 273, *range(277, 282), 284, 288, 289, 290, 291, 292, 293, 301, 317, COLOR_MAP, 321}
    | {*range(322, 328), SUB_IFDS, *range(332, 342), 342, 347, 351, 400, *range(512, 522), 529, 530, 531, 532}
    | {XMP, ICC, PHOTOSHOP_LAYERS, 32995, 32996, 32997, 32998}
)
# a tile may stick out of the image, but decoding it takes its whole size
MAX_TILE_PIXELS = 1 << 26


SAMPLE_KINDS = {SIGNED: "signed integer", FLOAT: "float", 5: "complex integer", 6: "complex"}


@dataclass(frozen=True)
class TiffLayout:
    """extra: the kind of the one sample beyond the colours, None without one. tile: (length, width), None for strips.

    kind: of the samples, as numpy's: "u", "i" or "f". compression, predictor and photometric are TIFF's numbers.
    """

    width: int
    height: int
    bits: int
    kind: str
    samples: int
    photometric: int
    compression: int
    predictor: int
    extra: int | None
    tile: tuple[int, int] | None

    @property
    def as_float(self) -> bool:
        """Whether the samples are read as float32: floats, signed ones, and those of more than 16 bits."""
        return self.kind != "u" or self.bits > 16

    @property
    def stored_bytes(self) -> int:
        """Of an uncompressed page."""
        return self.height * (self.width * self.samples * self.bits // 8)

    @property
    def channels(self) -> int:
        """Colour channels of the image that is read: 1 or 3."""
        return 1 if self.photometric in (MIN_IS_WHITE, MIN_IS_BLACK) else 3


@dataclass(frozen=True)
class TiffCoding(Coding):
    """How the file was stored, its byte order, BigTIFF or not, its further tags, raw in that byte order, and its
    NewSubfileType."""

    layout: TiffLayout
    order: str
    big: bool
    tags: tuple[tuple[int, Tag], ...] = ()
    subfile_type: int = 0

    def lost_elsewhere(self, has_profile: bool) -> tuple[str, ...]:
        return ("TIFF tags " + ", ".join(str(code) for code, _ in self.tags),) if self.tags else ()


def layout_of(tag_file: TagFile, directory: Directory) -> TiffLayout:
    """The layout that the tags give. Raises FormatError with the reason when pixels of that kind are not supported."""

    def numbers(code: int, default: int | None = None) -> tuple[int, ...]:
        tag = directory.tags.get(code)
        if tag is None and default is not None:
            return (default,)
        if tag is None or tag.type not in (3, 4, 16):
            raise FormatError(f"is damaged: tag {code} is missing or wrong")
        return tuple(int(value) for value in tag_file.values(tag))

    def number(code: int, default: int | None = None) -> int:
        return numbers(code, default)[0]

    bits, formats = set(numbers(BITS, 1)), set(numbers(SAMPLE_FORMAT, UNSIGNED))
    if len(bits) > 1 or len(formats) > 1:
        raise FormatError("has samples of different kinds: convert it to plain RGB or grey first")
    photometric, samples = number(PHOTOMETRIC), number(SAMPLES, 1)
    colours = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}.get(photometric)
    if colours is None:
        raise FormatError(f"has colours of a kind that is not supported (photometric {photometric}): convert it to RGB")
    extra = numbers(EXTRA_SAMPLES, UNSPECIFIED)[0] if samples == colours + 1 else None
    tile = (number(TILE_LENGTH), number(TILE_WIDTH)) if TILE_WIDTH in directory.tags else None
    layout = TiffLayout(
        width=number(WIDTH),
        height=number(LENGTH),
        bits=bits.pop(),
        kind={SIGNED: "i", FLOAT: "f"}.get(max(formats), "u"),
        samples=samples,
        photometric=photometric,
        compression=number(COMPRESSION, NO_COMPRESSION),
        predictor=number(PREDICTOR, 1),
        extra=extra,
        tile=tile,
    )
    if samples not in (colours, colours + 1):
        raise FormatError(f"has {samples} channels: split it into images of 1 or 3 channels")
    _check_samples(layout, formats.pop())
    if layout.compression not in LOSSLESS | CCITT | {JPEG}:
        raise FormatError(
            f"is compressed in a way that is not supported (compression {layout.compression}): save it with deflate "
            "or LZW"
        )
    if photometric == YCBCR and layout.compression != JPEG:
        raise FormatError("stores YCbCr without JPEG compression: convert it to RGB")
    if photometric == CMYK and (layout.bits != 8 or extra is not None or number(INK_SET, 1) != 1):
        raise FormatError("is CMYK of more than 8 bits or with further inks: convert it to RGB")
    if number(DEPTH, 1) != 1:
        raise FormatError("is a volume: split it into one file a slice")
    if tile and not (0 < tile[0] * tile[1] <= MAX_TILE_PIXELS):
        raise FormatError(f"is damaged: it claims tiles of {tile[1]:,} x {tile[0]:,} pixels")
    return layout


def _check_samples(layout: TiffLayout, sample_format: int) -> None:
    if layout.as_float:
        widths = {"u": (32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}
        allowed = sample_format in (UNSIGNED, SIGNED, FLOAT, 4) and layout.bits in widths[layout.kind]
        allowed &= layout.photometric in (MIN_IS_BLACK, RGB) and layout.compression in LOSSLESS
    else:
        allowed = sample_format in (UNSIGNED, 4) and 1 <= layout.bits <= 16
        allowed &= layout.bits in (8, 16) or layout.extra is None
        allowed &= layout.bits <= 8 or layout.photometric in (MIN_IS_WHITE, MIN_IS_BLACK, RGB)
    if not allowed:
        kind = SAMPLE_KINDS.get(sample_format, "unsigned integer")
        white = " of which 0 is white" if layout.photometric == MIN_IS_WHITE else ""
        raise FormatError(
            f"has {layout.bits}-bit {kind} samples{white}, which are not supported here: convert it to 8-bit, 16-bit "
            "unsigned or 32-bit float, of which 0 is black"
        )


def split_tags(directory: Directory) -> tuple[Directory, dict[int, Tag]]:
    """The directory of the EXIF block, and the further tags that only a TIFF can hold."""
    described = {code: tag for code, tag in directory.tags.items() if code in DESCRIPTIVE}
    dropped = STRUCTURAL | DESCRIPTIVE | CHILD_POINTERS
    kept = {code: tag for code, tag in directory.tags.items() if code not in dropped and tag.type <= 12}
    return replace(directory, tags=described, next_offset=0), kept
