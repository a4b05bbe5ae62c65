"""PSNR of peers as their papers print it, for orientation beside what was measured here.

These figures are published, not re-measured: protocols differ in clipping, rounding and seeds by up to some tenths of
a decibel. Gaussian noise that is known to the network or not, as each paper has it; sigma in 8-bit units.
"""

from __future__ import annotations

from collections.abc import Mapping

CITATIONS: Mapping[str, str] = {
    "DnCNN": "Zhang et al., Beyond a Gaussian Denoiser, IEEE TIP 2017, doi:10.1109/TIP.2017.2662206",
    "FFDNet": "Zhang et al., FFDNet, IEEE TIP 2018, doi:10.1109/TIP.2018.2839891",
    "DRUNet": "Zhang et al., Plug-and-Play with Deep Denoiser Prior, TPAMI 2021, arXiv:2008.13751",
    "SwinIR": "Liang et al., SwinIR, ICCV Workshops 2021, arXiv:2108.10257",
    "Restormer": "Zamir et al., Restormer, CVPR 2022, arXiv:2111.09881",
    "SCUNet": "Zhang et al., Practical Blind Image Denoising via Swin-Conv-UNet, MIR 2023, arXiv:2203.13278",
    "Xformer": "Zhang et al., Xformer, ICLR 2024, arXiv:2303.06440",
}

SIGMAS = (15, 25, 50)

# (folder name, channels) -> method -> PSNR at sigma 15, 25 and 50, as the tables of the Xformer and SCUNet papers have
# them side by side.
PUBLISHED: Mapping[tuple[str, int], Mapping[str, tuple[float, float, float]]] = {
    ("Set12", 1): {
        "DnCNN": (32.86, 30.44, 27.18),
        "FFDNet": (32.75, 30.43, 27.32),
        "DRUNet": (33.25, 30.94, 27.90),
        "SwinIR": (33.36, 31.01, 27.91),
        "Restormer": (33.42, 31.08, 28.00),
        "SCUNet": (33.43, 31.09, 28.04),
        "Xformer": (33.46, 31.16, 28.10),
    },
    ("BSD68", 1): {
        "DnCNN": (31.73, 29.23, 26.23),
        "FFDNet": (31.63, 29.19, 26.29),
        "DRUNet": (31.91, 29.48, 26.59),
        "SwinIR": (31.97, 29.50, 26.58),
        "Restormer": (31.96, 29.52, 26.62),
        "SCUNet": (31.99, 29.55, 26.67),
        "Xformer": (31.98, 29.55, 26.65),
    },
    ("Urban100", 1): {
        "DnCNN": (32.64, 29.95, 26.26),
        "FFDNet": (32.40, 29.90, 26.50),
        "DRUNet": (33.44, 31.11, 27.96),
        "SwinIR": (33.70, 31.30, 27.98),
        "Restormer": (33.79, 31.46, 28.29),
        "SCUNet": (33.88, 31.58, 28.56),
        "Xformer": (33.98, 31.78, 28.71),
    },
    ("CBSD68", 3): {
        "DnCNN": (33.90, 31.24, 27.95),
        "FFDNet": (33.87, 31.21, 27.96),
        "DRUNet": (34.30, 31.69, 28.51),
        "SwinIR": (34.42, 31.78, 28.56),
        "Restormer": (34.40, 31.79, 28.60),
        "SCUNet": (34.40, 31.79, 28.61),
        "Xformer": (34.43, 31.82, 28.63),
    },
    ("Kodak24", 3): {
        "DnCNN": (34.60, 32.14, 28.95),
        "FFDNet": (34.63, 32.13, 28.98),
        "DRUNet": (35.31, 32.89, 29.86),
        "SwinIR": (35.34, 32.89, 29.79),
        "Restormer": (35.47, 33.04, 30.01),
        "SCUNet": (35.34, 32.92, 29.87),
        "Xformer": (35.39, 32.99, 29.94),
    },
    ("McMaster", 3): {
        "DnCNN": (33.45, 31.52, 28.62),
        "FFDNet": (34.66, 32.35, 29.18),
        "DRUNet": (35.40, 33.14, 30.08),
        "SwinIR": (35.61, 33.20, 30.22),
        "Restormer": (35.61, 33.34, 30.30),
        "SCUNet": (35.60, 33.34, 30.29),
        "Xformer": (35.68, 33.44, 30.38),
    },
    ("Urban100", 3): {
        "DnCNN": (32.98, 30.81, 27.59),
        "FFDNet": (33.83, 31.40, 28.05),
        "DRUNet": (34.81, 32.60, 29.61),
        "SwinIR": (35.13, 32.90, 29.82),
        "Restormer": (35.13, 32.96, 30.02),
        "SCUNet": (35.18, 33.03, 30.14),
        "Xformer": (35.29, 33.21, 30.36),
    },
}


def published(test_set: str, channels: int, sigma: float) -> dict[str, float]:
    """Method -> published PSNR for a known set (by its folder's name, in any case), channels and sigma; else empty."""
    if sigma not in SIGMAS:
        return {}
    for (name, known_channels), rows in PUBLISHED.items():
        if name.lower() == test_set.lower() and known_channels == channels:
            return {method: values[SIGMAS.index(int(sigma))] for method, values in rows.items()}
    return {}
