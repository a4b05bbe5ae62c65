"""The predictor on random networks: tiles equal the whole, every array kind, and what is refused."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from denoise_se import denoiser as denoiser_module
from denoise_se import scanlines, tiling
from denoise_se import window as window_module
from denoise_se.blending import Strength, blended
from denoise_se.checkpoint import load_checkpoint, save_checkpoint
from denoise_se.denoiser import Denoiser
from denoise_se.errors import CheckpointError, DenoiseError, UsageError
from denoise_se.network import NetworkConfig, build_network
from denoise_se.noise_estimation import estimate_sigma
from denoise_se.scanlines import ArrayScanlines

TILE = 32
NAMES = {
    "gray": NetworkConfig("unet", channels=1, widths=(4, 6), blocks=1, se_ratio=0.5),
    "color": NetworkConfig("unet", channels=3, widths=(4, 6), blocks=1, se_ratio=0.5),
    "blind": NetworkConfig("flat", channels=3, noise_map=False, widths=(6,), blocks=2, block="mobile_se", norm="batch"),
    "cmyk": NetworkConfig("flat", channels=4, unshuffle=1, widths=(2,), blocks=1),
    "identity": NetworkConfig("unet", channels=1, widths=(4, 6), blocks=1),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints with random weights, far from the identity but for the one of that name."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, config in NAMES.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            network = build_network(config)
            if name != "identity":
                with torch.no_grad():
                    for key, parameter in network.named_parameters():
                        # strong gates, so that pooling over the wrong pixels shows
                        parameter.add_((2.0 if ".excite." in key else 0.06) * torch.randn(parameter.shape))
        save_checkpoint(folder / f"{name}.safetensors", network.state_dict(), config, training={}, psnr={})
    return {name: folder / f"{name}.safetensors" for name in NAMES}


@pytest.fixture
def load(files):
    return lambda name, **options: Denoiser.load(files[name], device="cpu", **options)


def with_weights_times(factor, model, path):
    """A checkpoint like `model`, its convolutions' weights so many times as large."""
    checkpoint = load_checkpoint(model)
    weights = {key: factor * value if value.ndim == 4 else value for key, value in checkpoint.weights.items()}
    save_checkpoint(path, weights, checkpoint.config, training={}, psnr={})
    return path


def picture(*shape, dtype=np.float32, seed=0):
    """A gradient with an edge, plus noise of sigma 20; float64 and float32 in about [0, 1], not clipped."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / 80
    clean = 0.3 + 0.2 * np.sin(3 * y) + 0.3 * (x > 0.7)
    clean = clean.reshape(*shape[:2], *[1] * (len(shape) - 2)) * np.linspace(0.6, 1, shape[2] if len(shape) > 2 else 1)
    noisy = clean.reshape(shape) + rng.normal(0, 20 / 255, shape)
    if np.dtype(dtype).kind == "f":
        return noisy.astype(dtype)
    top = np.iinfo(dtype).max
    return np.clip(np.rint(noisy * top), 0, top).astype(dtype)


# --- tiles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(33, 97), (70, 101), (130, 40)])
@pytest.mark.parametrize(("model", "channels"), [("gray", ()), ("gray", (3,)), ("color", (3,)), ("blind", (3,))])
def test_tiles_give_what_the_whole_image_gives(load, model, channels, size):
    tiled, whole = load(model, tile=TILE), load(model, tile=0)
    noisy = picture(*size, *channels)
    first, second = tiled(noisy, 20.0), whole(noisy, 20.0)
    assert np.abs(first - noisy).mean() > 0.01
    np.testing.assert_allclose(first, second, atol=1e-4, rtol=0)
    codes = picture(*size, *channels, dtype=np.uint8)
    difference = np.abs(tiled(codes, 20.0).astype(int) - whole(codes, 20.0))
    assert difference.max() <= 1 and difference.mean() < 0.01


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_has_no_noise_comes_back_as_it_is(load, dtype, monkeypatch):
    monkeypatch.setattr(denoiser_module, "BAND", 30)
    monkeypatch.setattr(scanlines, "BAND", 30)
    clean = picture(70, 40, 3, dtype=dtype)
    calls = []
    for sigma in (0, np.zeros((70, 40))):
        result = load("color").denoise(clean, sigma, progress=lambda *counts: calls.append(counts))
        np.testing.assert_array_equal(result.image, clean)
    assert calls[:4] == [(0, 3), (1, 3), (2, 3), (3, 3)], "bands, which are what tiles are here"
    assert np.abs(load("blind")(clean, 0).astype(float) - clean).max() > 0, "a blind network decides for itself"


@pytest.mark.parametrize(("model", "times"), [("gray", 3.7), ("color", 4.5)])
@pytest.mark.filterwarnings("ignore:the image has float values far outside")
def test_noise_stronger_than_any_of_the_training_is_taken_out_as_well(model, times):
    y, x = np.mgrid[:160, :160] / 160
    clean = (0.15 + 0.35 * x + 0.35 * y**2).astype(np.float32)
    if model == "color":
        clean = np.repeat(clean[..., None], 3, axis=2)
    noise = np.random.default_rng(0).normal(0, 1, clean.shape).astype(np.float32)
    denoiser = Denoiser.load(model, device="cpu", backend="torch", precision="fp32")

    def error(sigma: float) -> float:
        return float(np.sqrt(np.mean((denoiser(clean + sigma / 255 * noise, sigma).clip(0, 1) - clean) ** 2))) * 255

    assert error(255) < times * error(55), "left to itself 4.2 times as much for gray, and 4.9 for color"
    levels = np.full(clean.shape[:2], 20, np.float32)
    levels[80:] = 110
    strong = clean + (levels / 255).reshape(*levels.shape, *[1] * (clean.ndim - 2)) * noise
    whole, tiled = (Denoiser(denoiser.checkpoint, denoiser.backend, tile)(strong, levels) for tile in (0, 64))
    np.testing.assert_allclose(whole, tiled, atol=1e-4)


def test_a_denoiser_can_be_sent_to_another_process_as_it_was_loaded(load):
    noisy = picture(20, 30)
    denoiser = Denoiser.load(load("gray").checkpoint.path, device="cpu", tile=64)
    for copied in (pickle.loads(pickle.dumps(denoiser)), copy.deepcopy(denoiser)):
        assert copied.tile == 64
        np.testing.assert_array_equal(copied(noisy, 25.0), denoiser(noisy, 25.0))
    with pytest.raises(TypeError, match="load it in each process"):
        pickle.dumps(denoiser.in_lanes())


@pytest.mark.parametrize("strength", ["1", None, -0.1, float("nan")])
def test_a_strength_that_is_none_is_a_usage_error(load, strength):
    with pytest.raises(UsageError, match="strength is"):
        load("gray")(picture(8, 8), 25.0, strength)


@pytest.mark.parametrize("model", [3, None, Path(__file__).parent])
def test_a_model_that_is_none_is_a_checkpoint_error(model):
    with pytest.raises(CheckpointError):
        Denoiser.load(model)


def test_tiles_of_a_large_image_share_the_gates_of_its_samples(load, monkeypatch):
    noisy = picture(90, 140)
    pooled_over_all = load("gray", tile=0)(noisy, 20.0)
    monkeypatch.setattr(tiling, "WHOLE_PIXELS", 1000)
    for module in (denoiser_module, window_module):
        monkeypatch.setattr(module, "WHOLE_PIXELS", 1000)
    monkeypatch.setattr(tiling, "SAMPLE_SIDE", 16)
    results = [load("gray", tile=tile)(noisy, 20.0) for tile in (0, 32, 50)]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=1e-4, rtol=0)
    assert np.abs(results[0] - pooled_over_all).max() > 1e-3


def test_an_image_whose_gates_need_all_of_it_at_once_is_one_tile(load):
    gray, calls = load("gray"), []
    gray.denoise(picture(8, 2000), 20.0, progress=lambda *counts: calls.append(counts))
    assert calls == [(0, 1), (1, 1)]


def test_bands_may_be_written_over_the_image_they_are_read_from(load):
    noisy = picture(3 * TILE + 5, 2 * TILE + 3, 3)
    denoiser = load("color", tile=TILE)
    expected = denoiser(noisy, sigma=20)
    pixels, seen = noisy.copy(), 0
    for band in denoiser.bands(ArrayScanlines(pixels), 20.0):
        assert band.rows.start == seen and np.array_equal(band.noisy, noisy[band.rows.slice])
        pixels[band.rows.slice] = band.clean
        seen = band.rows.stop
    assert seen == len(noisy) and np.array_equal(pixels, expected)


def test_luma_and_chroma_have_a_strength_each(load):
    noisy = picture(40, 50, 3, dtype=np.uint8)
    denoiser = load("color")
    (tile,) = denoiser.tiles(ArrayScanlines(noisy), 20.0)
    expected = blended(noisy, tile.restored, Strength(1, 0.25))
    assert np.array_equal(denoiser(noisy, 20, Strength(1, 0.25)), expected)


def test_a_map_of_sigma_is_cut_along_with_the_tiles(load):
    noisy = picture(50, 90)
    level = np.linspace(0, 60, noisy.size).reshape(noisy.shape)
    tiled = load("gray", tile=TILE)(noisy, level)
    np.testing.assert_allclose(tiled, load("gray", tile=0)(noisy, level), atol=1e-4, rtol=0)
    assert np.abs(tiled - load("gray")(noisy, 30.0)).max() > 1e-3


# --- channels and types -----------------------------------------------------------------------


def test_a_gray_network_treats_the_channels_of_a_colour_image_one_by_one(load):
    plane, gray = picture(40, 37), load("gray")
    stack = np.repeat(plane[..., None], 3, axis=2)
    np.testing.assert_allclose(gray(stack, 20.0), np.repeat(gray(plane, 20.0)[..., None], 3, axis=2), atol=1e-5)
    color = picture(40, 37, 3)
    np.testing.assert_allclose(gray(color[..., ::-1], 20.0), gray(color, 20.0)[..., ::-1], atol=1e-5)


def test_a_colour_network_sees_a_gray_image_in_triplicate(load):
    plane, color = picture(40, 37), load("color")
    expected = color(np.repeat(plane[..., None], 3, axis=2), 20.0).mean(axis=2)
    np.testing.assert_allclose(color(plane, 20.0), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3), (1, 1), (1, 1, 3), (2, 31)])
def test_shape_and_type_stay(load, shape, dtype):
    noisy = picture(*shape, dtype=dtype)
    for model in ("gray", "color", "blind"):
        result = load(model)(noisy, 15.0)
        assert result.shape == shape and result.dtype == noisy.dtype
        assert np.isfinite(result).all()


@pytest.mark.parametrize("shape", [(40, 37), (40, 37, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_rounded_fractions_of_their_range(load, shape, dtype):
    top = np.iinfo(dtype).max
    codes = picture(*shape, dtype=dtype)
    expected = load("color")((codes / top).astype(np.float32), 20.0)
    assert expected.max() > 1 or expected.min() < 0 or codes.ndim == 3
    found = load("color")(codes, 20.0)
    assert np.abs(found - np.clip(expected.astype(np.float64) * top, 0, top)).max() < 0.51


def test_a_network_that_changes_nothing_gives_every_value_back(load):
    identity = load("identity", tile=TILE)
    floats = picture(40, 70) * 5 - np.float32(1.2)
    assert floats.min() < -1 and floats.max() > 2
    np.testing.assert_array_equal(identity(floats, 20.0), floats)
    for dtype in (np.uint8, np.uint16):
        codes = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 128 if dtype == np.uint16 else 16)
        np.testing.assert_array_equal(identity(codes, 20.0), codes)


@pytest.mark.parametrize("name", ["reversed", "transposed", "every second", "read-only", "Fortran"])
def test_any_memory_layout_gives_the_same_and_the_input_stays(load, name):
    base = picture(60, 44, 3)
    noisy = {
        "reversed": base[::-1, ::-1],
        "transposed": base.transpose(1, 0, 2),
        "every second": base[::2, ::2],
        "read-only": base.copy(),
        "Fortran": np.asfortranarray(base),
    }[name]
    if name == "read-only":
        noisy.setflags(write=False)
    before = base.copy()
    result = load("color", tile=TILE)(noisy, 20.0)
    np.testing.assert_array_equal(result, load("color", tile=TILE)(np.ascontiguousarray(noisy), 20.0))
    np.testing.assert_array_equal(base, before)
    assert not np.shares_memory(result, noisy) and result.flags.writeable


@pytest.mark.parametrize("shape", [(0, 5), (5, 0, 3), (0, 0, 1)])
@pytest.mark.parametrize("sigma", [None, 20.0])
def test_an_image_without_pixels_comes_back(load, shape, sigma):
    for dtype in (np.uint8, np.float32):
        result = load("gray")(np.zeros(shape, dtype), sigma)
        assert result.shape == shape and result.dtype == dtype


def test_values_too_large_for_the_network_stay_and_spoil_nothing_else(load):
    noisy = picture(400, 37)
    huge = noisy.copy()
    huge[10, :5] = 3e38  # so few that the picture's range is not theirs
    without, result = (load("gray", backend="torch", precision="fp32")(image, 20.0) for image in (noisy, huge))
    np.testing.assert_array_equal(result[10, :5], huge[10, :5])
    np.testing.assert_allclose(result[200:], without[200:], atol=0.02)


def test_a_result_that_is_not_finite_is_refused_by_the_models_name(files, tmp_path):
    model = with_weights_times(1e12, files["gray"], tmp_path / "broken.safetensors")
    with pytest.raises(DenoiseError, match=r"broken: its result is not finite; train it again, or take another"):
        Denoiser.load(model, backend="torch", precision="fp32")(picture(40, 37), 20.0)


def test_a_single_pixel_gives_no_warning(load):
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for shape in [(1, 1), (1, 1, 3)]:
                load("gray")(picture(*shape), 20.0)
    finally:
        torch.set_warn_always(always)


# --- sigma and strength -----------------------------------------------------------------------


def test_strength_blends_the_input_and_the_result(load):
    gray = load("gray")
    for dtype in (np.uint8, np.uint16, np.float32):
        noisy = picture(40, 37, dtype=dtype)
        np.testing.assert_array_equal(gray(noisy, 20.0, strength=0), noisy)
    np.testing.assert_allclose(gray(noisy, 20.0, 0.5), (noisy + gray(noisy, 20.0)) / 2, atol=1e-6)
    np.testing.assert_allclose(gray(noisy, 20.0, 0.25), 0.75 * noisy + 0.25 * gray(noisy, 20.0), atol=1e-6)


def test_sigma_is_estimated_when_it_is_not_given_and_told(load):
    noisy, gray = picture(64, 64), load("gray")
    found = gray.denoise(noisy)
    assert found.sigma == pytest.approx(estimate_sigma(noisy), rel=1e-6) and found.seconds > 0
    np.testing.assert_allclose(found.image, gray(noisy, found.sigma), atol=1e-6)
    assert gray.denoise(noisy, 20).sigma == pytest.approx(20)
    assert np.abs(gray(noisy, 50.0) - gray(noisy, 5.0)).max() > 1e-3


def test_a_flat_map_of_sigma_is_that_sigma(load):
    noisy = picture(40, 37, 3)
    for model in ("gray", "color"):
        flat = load(model).denoise(noisy, np.full((40, 37), 20.0))
        assert flat.sigma == pytest.approx(20)
        np.testing.assert_allclose(flat.image, load(model)(noisy, 20.0), atol=1e-6)


def test_a_blind_network_needs_no_sigma_and_tells_none(load):
    noisy, blind = picture(20, 21, 3), load("blind")
    assert blind.blind and not load("gray").blind
    found = blind.denoise(noisy)
    assert found.sigma is None
    np.testing.assert_array_equal(found.image, blind(noisy, 99.0))


# --- progress ---------------------------------------------------------------------------------


def test_progress_counts_the_tiles_and_its_exception_stops_the_work(load):
    gray, noisy, calls = load("gray", tile=TILE), picture(70, 40), []
    gray.denoise(noisy, 20.0, progress=lambda *counts: calls.append(counts))
    assert calls == [(done, 6) for done in range(7)]

    class Stop(Exception):
        pass

    def stop(done, total):
        if done == 2:
            raise Stop

    windows = []
    run = gray.backend.denoise
    gray.backend.denoise = lambda *arguments: windows.append(1) or run(*arguments)
    before = noisy.copy()
    with pytest.raises(Stop):
        gray.denoise(noisy, 20.0, progress=stop)
    assert 2 <= len(windows) <= 3  # the next one may be under way
    np.testing.assert_array_equal(noisy, before)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noisy", "words"),
    [
        ([[1.0]], "the image is a list; give a numpy array"),
        (np.zeros((4, 4), np.int32), "the image is int32; give uint8, uint16 or a float type"),
        (np.zeros((4, 4), bool), "the image is bool"),
        (np.zeros((4, 4), complex), "the image is complex128"),
        (np.zeros((4, 4), object), "the image is object"),
        (np.zeros(4, np.uint8), r"shape \(4,\); give \[H, W\]"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((4, 4, 4), np.uint8), "alpha apart"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"shape \(1, 4, 4, 3\)"),
        (np.array([[0.5, np.nan]]), "NaN"),
        (np.array([[0.5, -np.inf]], np.float16), "infinite"),
        (np.array([[0.5, 1e300]]), "infinite as float32"),
    ],
)
def test_images_that_cannot_be_denoised_are_refused(load, noisy, words):
    for strength in (0.0, 1.0):
        with pytest.raises(UsageError, match=words):
            load("gray")(noisy, 20.0, strength)


@pytest.mark.parametrize("sigma", [-1, np.nan, np.inf, "loud", np.full((8, 8), -1.0), np.full((8, 8), np.nan), [None]])
def test_a_sigma_that_is_no_level_is_refused(load, sigma):
    with pytest.raises(UsageError, match="sigma must be a number from 0 to 255, in 8-bit units"):
        load("gray")(picture(8, 8), sigma)


@pytest.mark.parametrize("shape", [(1,), (8,), (8, 9), (8, 8, 1)])
def test_a_map_of_sigma_of_another_shape_is_refused(load, shape):
    with pytest.raises(UsageError, match="the map of sigma has shape"):
        load("gray")(picture(8, 8), np.full(shape, 20.0))


@pytest.mark.parametrize("strength", [-0.1, 1.1, np.nan])
def test_a_strength_outside_its_range_is_refused(load, strength):
    with pytest.raises(UsageError, match="it lies from 0"):
        load("gray")(picture(8, 8), 20.0, strength)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile": -1}, "--tile -1: give auto, 0 .* or a number of pixels"),
        ({"tile": "big"}, "--tile 'big'"),
        ({"tile": 64.0}, "--tile 64.0"),
        ({"tile": False}, "--tile False"),
        ({"backend": "abacus"}, "--backend 'abacus' is not available; one of auto, torch"),
        ({"precision": "fp64"}, "--precision 'fp64' is unknown"),
        ({"precision": "int8", "backend": "torch"}, "int8 is not available with the torch backend"),
        ({"precision": "int8"}, "gray has no calibration for these weights; denoise-se quantize"),
    ],
)
def test_options_that_cannot_be_had_are_refused(load, options, words):
    with pytest.raises(UsageError, match=words):
        load("gray", **options)


def test_devices_that_are_not_here_are_refused(files, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device, words in [("cuda", "sees no CUDA GPU"), ("mps", "sees no Apple GPU"), ("tpu", "'tpu' is unknown")]:
        with pytest.raises(UsageError, match=words):
            Denoiser.load(files["gray"], device=device)
    assert Denoiser.load(files["gray"], backend="torch").backend.description == "torch cpu fp32"


def test_a_network_for_other_images_and_a_missing_one_are_refused(load, tmp_path):
    with pytest.raises(UsageError, match="cmyk: a network of 4 channels; images have 1 or 3"):
        load("cmyk")
    with pytest.raises(CheckpointError):
        Denoiser.load(tmp_path / "none.safetensors")
    assert issubclass(CheckpointError, DenoiseError)


# --- precision --------------------------------------------------------------------------------


def test_bfloat16_is_close_to_float32(load):
    noisy = picture(33, 40)
    full, low = (load("gray", backend="torch", precision=precision)(noisy, 20.0) for precision in ("fp32", "bf16"))
    assert 0 < np.abs(full - low).max() < 0.05


def test_a_result_that_overflows_in_float16_is_computed_again_in_float32_and_said_once(files, tmp_path, caplog):
    noisy = picture(16, 16)
    model = with_weights_times(30, files["gray"], tmp_path / "strong.safetensors")
    denoiser = Denoiser.load(model, device="cpu", precision="fp16")
    result = denoiser(noisy, 20.0)
    assert np.array_equal(denoiser(noisy, 20.0), result)
    assert [record.message for record in caplog.records] == [
        "note: torch cpu fp16: its result is not finite, computed again in fp32"
    ]
    assert np.isfinite(result).all()
    in_float32 = Denoiser.load(model, device="cpu", backend="torch", precision="fp32")(noisy, 20.0)
    np.testing.assert_allclose(result, in_float32, rtol=1e-5)


def test_floats_of_another_range_bring_a_warning_and_noise_beyond_the_range_does_not(load):
    noisy = picture(40, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("gray")(noisy, 20)
        load("gray")(picture(40, 40, dtype=np.uint8), 20)
        load("gray")(np.random.default_rng(0).normal(0, 0.2, (40, 40)), 50)
        load("gray")(noisy * 255)
    with pytest.warns(UserWarning, match="float values far outside of 0 to 1; sigma takes 1 for white"):
        load("gray")(noisy * 255, 20)


def test_the_other_byte_order_is_the_same_picture(load):
    pixels = picture(40, 30).clip(0, 1)
    for dtype in (np.uint16, np.float32):
        native = (pixels * (65535 if dtype == np.uint16 else 1)).astype(dtype)
        other = native.astype(native.dtype.newbyteorder())
        result = load("gray")(other, 20.0)
        assert result.dtype == other.dtype and np.array_equal(result, load("gray")(native, 20.0))
