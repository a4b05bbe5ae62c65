"""JPEG's and cameras' noise: what a file of a quality holds, and a sensor's noise through its development."""

from __future__ import annotations

import io
import math

import numpy as np
import PIL.Image
import pytest
import torch
from noise_fields import CAMERA, constant, scene, seeded

from denoise_se.camera_noise import Raw, demosaic_sharp, rggb, srgb_to_linear
from denoise_se.errors import NoiseSpecError
from denoise_se.noise import (
    Jpeg,
    Range,
    parse_noise_spec,
)


@pytest.mark.parametrize("quality", [30, 90])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_a_file_of_that_quality_holds(quality, channels):
    picture = np.rint(255 * scene(83, 90)).astype(np.uint8)[..., :channels]
    file = io.BytesIO()
    PIL.Image.fromarray(picture.squeeze()).save(file, "jpeg", quality=quality, subsampling="4:2:0")
    decoded = np.asarray(PIL.Image.open(file)).reshape(picture.shape)
    beyond = picture / np.float32(255) + np.where(picture == 255, 0.3, 0).astype(np.float32)  # is clipped
    noisy, level = Jpeg(Range(quality, quality))(torch.from_numpy(beyond).movedim(2, 0)[None], seeded())
    ours = 255 * noisy[0].numpy().transpose(1, 2, 0)
    assert np.abs(ours - decoded).max() <= 2 and np.abs(ours - decoded).mean() < 0.05
    assert np.abs(decoded - picture.astype(float)).mean() > 0.5
    assert level.shape == (1, 1, 83, 90) and not level.any()


def test_each_image_of_a_batch_has_a_quality_of_its_own():
    clean = torch.from_numpy(scene(64, 64)).movedim(2, 0)[None].repeat(6, 1, 1, 1)
    lost = (Jpeg(Range(10, 95))(clean, seeded()).image - clean).square().mean(dim=(1, 2, 3))
    assert len(set(lost.tolist())) > 3


def test_jpeg_refuses_what_no_jpeg_can_hold():
    with pytest.raises(NoiseSpecError, match="jpeg: a JPEG has at most 65500 pixels a side, not 65501x1"):
        Jpeg(Range(50, 50))(torch.zeros(1, 1, 1, 65_501), seeded())
    assert Jpeg(Range(50, 50))(torch.zeros(1, 1, 1, 65_500), seeded()).image.shape == (1, 1, 1, 65_500)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 5), (1, 3, 17, 16)])
def test_jpeg_takes_any_size(shape):
    noisy = Jpeg(Range(50, 50))(constant(0.5, *shape), seeded()).image
    torch.testing.assert_close(noisy, constant(0.5, *shape), atol=0.02, rtol=0)


def test_camera_noise_is_coarse_centred_and_told_by_its_rms():
    clean = constant(0.5, 1, 3, 120, 120)
    noisy, level = parse_noise_spec("camera:gain=0.001,read=0.01,luma=0.5,chroma=1")(clean, seeded())
    noise = noisy - clean
    assert float(level.mean()) == pytest.approx(float(noise.square().mean().sqrt()), rel=1e-5)
    assert abs(float(noise.mean())) < 0.1 * float(noise.std())
    assert float((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()) > 0.3


def test_camera_needs_colour_and_room_for_its_filters():
    camera = parse_noise_spec(CAMERA)
    with pytest.raises(NoiseSpecError, match=r"camera: needs RGB images, not 1 channel\(s\); use poisson-gaussian"):
        camera(constant(0.5, 1, 1, 16, 16), seeded())
    with pytest.raises(NoiseSpecError, match="more than 3 pixels a side"):
        camera(constant(0.5, 1, 3, 16, 3), seeded())
    assert camera(constant(0.5, 1, 3, 4, 4), seeded()).image.shape == (1, 3, 4, 4)


# drawn before the models became modules, those with JPEG when it became libjpeg; a run that resumes must draw the same
DRAWN = {
    "camera:gain=0.0002-0.006,read=0.001-0.012,luma=0.4-0.9,chroma=0.5-3": (5155.336779, 0.050376, 0.976577, 0.670522),
    "gaussian:0-40": (5189.851415, 0.024121, 1.031763, 0.677095),
    "camera:gain=0.0002-0.006,read=0.001-0.012,luma=0.4-0.9,chroma=0.5-3+jpeg:85-99|"
    "camera:gain=0.0002-0.006,read=0.001-0.012,luma=0.4-0.9,chroma=0.5-3|gaussian:0-40|gaussian:0-25+jpeg:80-99": (
        5182.5651,
        0.01282,
        0.988235,
        0.256329,
    ),
    "poisson-gaussian:gain=0.01,read=0.01-0.02": (5183.926905, 0.018451, 1.028957, 0.677095),
    "speckle:0.1-0.3": (5186.221208, 0.009426, 1.078133, 0.677095),
    "salt-pepper:0.1-0.4": (5166.11893, 0.008681, 0.99238, 0.857974),
    "correlated:sigma=5-25,radius=1-2": (5148.357289, 0.017, 1.084905, 0.406623),
}


@pytest.mark.parametrize("spec", DRAWN)
def test_the_shipped_recipes_noise_is_drawn_as_it_was(spec):
    generator = seeded(11)
    clean = torch.linspace(0, 1, 6 * 3 * 24 * 24).reshape(6, 3, 24, 24).flip(3)
    image = parse_noise_spec(spec)(clean, generator).image
    found = (image.double().sum(), image[0, 0, 3, 5], image[5, 2, 20, 7], torch.rand(1, generator=generator))
    total, *values = (float(value) for value in found)
    rounded = "jpeg" in spec  # to 8 bits: another processor's last digit may be another code
    assert total == pytest.approx(DRAWN[spec][0], abs=0.05 if rounded else 0.01)
    assert values == pytest.approx(DRAWN[spec][1:], abs=0.005 if rounded else 2e-5)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_demosaicing_keeps_straight_lines_and_samples(channel):
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    planes = torch.stack([0.2 + 0.01 * x + 0.02 * y] * 3)[None]
    mask = rggb(planes)
    filled = demosaic_sharp((planes * mask).sum(dim=1, keepdim=True))
    torch.testing.assert_close(filled[..., 2:-2, 2:-2], planes[..., 2:-2, 2:-2])
    white = torch.randn(1, 1, 20, 24, generator=seeded())
    assert torch.equal((demosaic_sharp(white) * mask)[0, channel], white[0, 0] * mask[channel])


@pytest.mark.parametrize("grey", [0.3, 0.7])
def test_raw_noise_is_that_of_the_sensor_through_white_balance_demosaicing_and_curve(grey):
    gain, read, balance = 0.0001, 0.001, (1.9, 1.0, 1.5)
    clean = constant(grey, 1, 3, 600, 600)
    noisy, level = Raw(Range(gain, gain), Range(read, read), Range(1.9, 1.9), Range(1.5, 1.5))(clean, seeded())
    linear = ((grey + 0.055) / 1.055) ** 2.4
    red, green, blue = (b**2 * (gain * linear / b + read**2) for b in balance)
    # Malvar's weights, squared, in 1/256: green at red and at blue; red at green (twice) and at blue, and blue so
    at_red, at_blue = (4 * 16 * green + (64 + 4 * 4) * other for other in (red, blue))
    beside = [2 * 64 * own + (100 + 4 * 4 + 2 * 4 + 2 * 1) * green for own in (red, blue)]
    across = [4 * 16 * own + (144 + 4 * 9) * other for own, other in ((red, blue), (blue, red))]
    theory = [
        (red + 2 * beside[0] / 256 + across[0] / 256) / 4,
        (2 * green + at_red / 256 + at_blue / 256) / 4,
        (blue + 2 * beside[1] / 256 + across[1] / 256) / 4,
    ]
    slope = 1.055 / 2.4 * linear ** (1 / 2.4 - 1)
    for channel, variance in enumerate(theory):
        noise = (noisy - clean)[0, channel]
        assert abs(float(noise.mean())) < 0.03 * math.sqrt(variance) * slope
        assert float(noise.std()) == pytest.approx(math.sqrt(variance) * slope, rel=0.01)
    assert float(level.square().mean()) == pytest.approx(sum(theory) / 3 * slope**2, rel=0.005)


def test_raw_without_noise_is_the_picture_but_for_its_finest_detail():
    clean = torch.from_numpy(scene(64, 66)).movedim(2, 0)[None]
    smooth = torch.nn.functional.avg_pool2d(clean, 5, 1)
    model = parse_noise_spec("raw:gain=0,read=0")
    inside = (model(smooth, seeded()).image - smooth)[..., 2:-2, 2:-2]
    assert float(inside.abs().mean()) < 0.003
    assert float((model(clean, seeded()).image - clean).abs().mean()) < 0.03
    coded = parse_noise_spec("raw:gain=0,read=0,jpeg=20")(smooth, seeded()).image
    assert float((coded - smooth).abs().mean()) > 0.008


def test_raw_needs_colour_and_a_mosaic():
    raw = parse_noise_spec("raw:gain=0.01,read=0.01")
    with pytest.raises(NoiseSpecError, match=r"raw: needs RGB images, not 1 channel\(s\); use poisson-gaussian"):
        raw(constant(0.5, 1, 1, 16, 16), seeded())
    with pytest.raises(NoiseSpecError, match="at least 3 pixels a side"):
        raw(constant(0.5, 1, 3, 16, 2), seeded())
    assert raw(constant(0.5, 2, 3, 3, 5), seeded()).image.shape == (2, 3, 3, 5)
    assert float(srgb_to_linear(torch.tensor(0.5))) == pytest.approx(0.214041, abs=1e-6)  # IEC 61966-2-1
