"""CMYK to sRGB through the colour profile: without one, the colours of CMYK values are not known."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from denoise_se.image import FormatError
from denoise_se.srgb_profile import srgb_profile

if TYPE_CHECKING:
    from PIL import Image as pillow


def srgb(image: pillow.Image, icc: bytes | None) -> tuple[np.ndarray, bytes]:
    """`[H, W, 3]` uint8 sRGB pixels of a Pillow CMYK image (0 = no ink), and the sRGB profile. FormatError."""
    from PIL import ImageCms

    if icc is None or image.mode != "CMYK":
        raise FormatError(
            "is CMYK without a colour profile, so its colours are not known: convert it to RGB in a program that can "
            "be told the profile"
        )
    target = ImageCms.ImageCmsProfile(BytesIO(srgb_profile()))
    try:
        converted = ImageCms.profileToProfile(
            image, BytesIO(icc), target, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise FormatError(f"is CMYK with a colour profile that cannot be used ({error})") from error
    if converted is None:
        raise FormatError("is CMYK and cannot be converted to RGB")
    return np.array(converted), srgb_profile()
