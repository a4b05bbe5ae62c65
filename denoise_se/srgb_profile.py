"""The colour profile of sRGB, for pixels that were converted to it."""

from __future__ import annotations

from functools import cache

# the date in a profile's header (ICC.1:2004, 7.2.8): the same input must give the same bytes on any day
CREATED = slice(24, 36)
UNDATED = bytes(12)


@cache
def srgb_profile() -> bytes:
    """Always the same bytes."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[CREATED] = UNDATED
    return bytes(profile)
