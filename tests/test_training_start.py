"""The model that a run starts from when it is not told one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import tifffile
import torch

from denoise_se.file_pairs import PairedFiles
from denoise_se.noise import parse_noise_spec
from denoise_se.noise_measurement import measure_noise
from denoise_se.training_layout import Layout, recognise
from denoise_se.training_start import channels_of, choose_start

PICTURES = {"camera": skimage.data.camera()[:192, :192], "coins": skimage.data.coins()[:192, :192]}
COLOURS = {"chelsea": skimage.data.chelsea()[:192, :192, ::-1], "astronaut": skimage.data.astronaut()[:192, :192, ::-1]}
CAMERA = "raw:gain=0.002,read=0.005,jpeg=92-95"


def saved(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    return path


def with_noise(picture: np.ndarray, seed: int, smooth: float) -> np.ndarray:
    """White noise of sigma 12, or such noise that neighbouring pixels share, as cameras make it."""
    noise = np.random.default_rng(seed).normal(0, 1, picture.shape)
    if smooth:
        noise = cv2.GaussianBlur(noise, (0, 0), smooth)
    return picture + 12 * noise / noise.std()


@pytest.mark.parametrize(
    ("pictures", "spec", "name"),
    [(PICTURES, "gaussian:12", "gray"), (COLOURS, "gaussian:12", "color"), (COLOURS, CAMERA, "photo")],
)
def test_pairs_and_bursts_start_from_what_cleans_them_better(tmp_path, pictures, spec, name):
    noise = parse_noise_spec(spec)

    def shot(picture: np.ndarray, seed: int) -> np.ndarray:
        planes = torch.from_numpy(picture.copy().reshape(*picture.shape[:2], -1)).permute(2, 0, 1)[None] / 255
        return noise(planes, torch.Generator().manual_seed(seed)).image[0].permute(1, 2, 0).numpy() * 255

    for seed, (label, picture) in enumerate(pictures.items()):
        saved(tmp_path / f"pairs/clean/{label}.png", picture)
        saved(tmp_path / f"pairs/noisy/{label}.png", shot(picture, seed))
        for number in range(3):
            saved(tmp_path / f"burst/{label}/{number}.png", shot(picture, 9 * seed + number))
    for folder in ("pairs", "burst"):
        layout = recognise(tmp_path / folder, has_noise=False)
        assert layout.kind == ("pairs" if folder == "pairs" else "burst")
        channels = channels_of(layout, None)
        start = choose_start(layout, channels)
        assert start.name == name and start.checkpoint.config.channels == channels, start.why
        assert "dB on 2 of the images" in start.why


@pytest.mark.parametrize(("smooth", "name"), [(0, "gray"), (1.0, "photo")])
def test_noisy_pictures_alone_start_by_whether_neighbours_share_their_noise(tmp_path, smooth, name):
    for seed, (label, picture) in enumerate(PICTURES.items()):
        saved(tmp_path / f"{label}.png", with_noise(picture, seed, smooth))
    assert choose_start(recognise(tmp_path, has_noise=False), 1).name == name


def test_colour_pictures_and_mixed_ones_take_three_channels(tmp_path):
    saved(tmp_path / "a.png", skimage.data.astronaut()[:128, :128])
    clean = Layout("clean", tmp_path, PairedFiles(None, tmp_path), "")
    assert channels_of(clean, None) == 3 and choose_start(clean, 3).name == "color"
    saved(tmp_path / "b.png", PICTURES["camera"])
    (tmp_path / "c.png").write_bytes(b"no image")
    assert channels_of(clean, None) == 3
    (tmp_path / "a.png").unlink()
    assert channels_of(clean, None) == 1 and choose_start(clean, 1).name == "gray"


@pytest.mark.parametrize(
    ("noise", "name"),
    [("gaussian:5-50", "gray"), ("poisson-gaussian:gain=0.01,read=0.01", "gray"), ("jpeg:10-30", "photo")],
)
def test_clean_pictures_start_from_what_does_better_on_their_noise(tmp_path, noise, name):
    for label, picture in PICTURES.items():
        saved(tmp_path / f"{label}.png", picture)
    clean = Layout("clean", tmp_path, PairedFiles(None, tmp_path), "")
    assert choose_start(clean, 1, parse_noise_spec(noise)).name == name


def test_noise_that_was_measured_on_grey_images_asks_for_a_grey_network(tmp_path):
    saved(tmp_path / "clean/a.png", skimage.data.astronaut()[:128, :128])
    clean = Layout("clean", tmp_path / "clean", PairedFiles(None, tmp_path / "clean"), "")
    measure_noise([with_noise(PICTURES["camera"], 0, 0) / 255]).profile.save(tmp_path / "grey.json")
    assert channels_of(clean, parse_noise_spec(f"profile:{tmp_path / 'grey.json'}")) == 1
    saved(tmp_path / "clean/a.png", PICTURES["camera"])
    assert channels_of(clean, parse_noise_spec("camera:gain=0.001,read=0.01,luma=0.6,chroma=1.5")) == 3


def test_stacks_of_shots_are_looked_at_page_by_page_and_broken_files_passed_over(tmp_path):
    for seed, (label, picture) in enumerate(PICTURES.items()):
        shots = np.stack([with_noise(picture, 5 * seed + shot, 0) for shot in range(3)]) * 8
        tifffile.imwrite(tmp_path / f"{label}.tif", shots.clip(0).astype(np.uint16), photometric="minisblack")
    (tmp_path / "broken.tif").write_bytes(b"II*\0nothing")
    start = choose_start(Layout("burst", tmp_path, None, ""), 1)
    assert start.name == "gray" and "dB on 2 of the images" in start.why
