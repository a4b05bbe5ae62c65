"""LZW data that crash a decoder are told from sound ones."""

from __future__ import annotations

import time

import imagecodecs
import numpy as np
import PIL.Image
import pytest

from denoise_se import image_io
from denoise_se.errors import ImageError
from denoise_se.image import FormatError
from denoise_se.lzw import check_lzw

RNG = np.random.default_rng(5)


def packed(*codes: int, low_first: bool = False) -> bytes:
    """Codes of 9 bits each."""
    bits = "".join(f"{code:09b}"[:: -1 if low_first else 1] for code in codes)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8][:: -1 if low_first else 1], 2) for i in range(0, len(bits), 8))


@pytest.mark.parametrize("size", [1, 300, 5_000, 200_000])
@pytest.mark.parametrize("levels", [1, 4, 256])
def test_sound_data_of_any_length_pass(size, levels):
    check_lzw(imagecodecs.lzw_encode(RNG.integers(0, levels, size, np.uint8).tobytes()))


@pytest.mark.parametrize("low_first", [False, True])
def test_a_table_entry_right_after_a_clear_code_is_refused_wherever_it_is(low_first):
    check_lzw(packed(256, 65, 66, 256, 256, 67, 257, low_first=low_first))
    for codes in ((256, 300), (256, 258, 65), (256, 65, 66, 258, 256, 400, 257), (256, 65, 256, 256, 300)):
        with pytest.raises(FormatError, match="LZW"):
            check_lzw(packed(*codes, low_first=low_first))


def test_every_change_of_width_is_followed():
    # a clear code behind a table that has grown to 12 bits, and a wrong code behind it
    data = imagecodecs.lzw_encode(RNG.integers(0, 256, 20_000, np.uint8).tobytes())
    bits = "".join(f"{byte:08b}" for byte in data)
    # TIFF 6.0: the encoder clears at the 4094th entry; the codes before it take 9, 10, 11 and 12 bits
    position = 9 + 254 * 9 + 512 * 10 + 1024 * 11
    while int(bits[position : position + 12], 2) != 256:
        position += 12
    wrong = bits[: position + 12] + f"{300:09b}" + bits[position + 21 :]
    check_lzw(data)
    with pytest.raises(FormatError, match="LZW"):
        check_lzw(bytes(int(wrong[i : i + 8], 2) for i in range(0, len(wrong) // 8 * 8, 8)))


def test_endless_clear_codes_take_no_time():
    start = time.perf_counter()
    with pytest.raises(FormatError, match="clear codes"):
        check_lzw(packed(*[256, 65] * 20_000))
    assert time.perf_counter() - start < 2


def test_a_tiff_with_such_data_is_refused_by_name(tmp_path):
    path = tmp_path / "a.tif"
    PIL.Image.fromarray(RNG.integers(0, 256, (8, 8), np.uint8)).save(path, compression="tiff_lzw")
    image_io.read(path)
    data = bytearray(path.read_bytes())
    with PIL.Image.open(path) as image:
        start = image.tag_v2[273][0]
    data[start : start + 5] = packed(256, 300, 301, 302)
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.tif.*LZW"):
        image_io.read(path)
