"""`denoise-se evaluate`: its protocol, and the methods that it measures."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from evaluation_sets import Recorder, by_method, folder_of, picture
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from denoise_se.errors import DenoiseError, NoiseSpecError, UsageError
from denoise_se.estimate_error import estimate_errors
from denoise_se.evaluation import evaluate
from denoise_se.evaluation_methods import ModelMethod, parse_against
from denoise_se.evaluation_report import write_report
from denoise_se.evaluation_set import add_noise
from denoise_se.noise import parse_noise_spec
from denoise_se.quality import QualityEstimate


def test_gaussian_protocol_is_the_one_of_the_design(gray_set):
    method = Recorder()
    result = evaluate([method], clean=[gray_set], noises=["gaussian:25"])
    expected = {"half": [], "noisy": []}
    for index in range(3):
        clean = picture(index, 20, 24 + index)
        x = torch.from_numpy(clean).float()[None] / 255
        noisy = (x + torch.randn(x.shape, generator=torch.Generator().manual_seed(index)) * 25 / 255)[0].numpy()
        seen = [seen for seen, sigma in method.calls if seen.shape == noisy.shape and sigma == 25.0]
        np.testing.assert_allclose(seen[-1], noisy, atol=1e-6)
        for name, image in (("half", 0.25 + noisy / 2), ("noisy", noisy)):
            codes = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
            expected[name].append(peak_signal_noise_ratio(clean, codes, data_range=255))
    means = by_method(result.means())
    assert list(means) == ["noisy", "half"]
    for name in means:
        assert means[name].psnr == pytest.approx(np.mean(expected[name]), abs=1e-3)
        assert means[name].images == 3 and means[name].sigma == 25.0 and means[name].test_set == "Set12"
    assert 0 < means["half"].ssim < 1


def test_noise_is_not_clipped_and_has_the_asked_sigma():
    clean = np.zeros((200, 200, 3), np.float32)
    noisy, sigma = add_noise(clean, parse_noise_spec("gaussian:25"), index=7)
    assert sigma == 25.0 and noisy.shape == clean.shape and noisy.min() < 0
    assert 255 * noisy.std() == pytest.approx(25, rel=0.01)
    again, _ = add_noise(clean, parse_noise_spec("gaussian:25"), index=7)
    other, _ = add_noise(clean, parse_noise_spec("gaussian:25"), index=8)
    np.testing.assert_array_equal(noisy, again)
    assert np.abs(noisy - other).max() > 0.1


@pytest.mark.parametrize("spec", ["gaussian:5-50", "gaussian:15+gaussian:20"])
def test_sigma_is_told_for_gaussian_noise_of_any_kind(spec):
    noisy, sigma = add_noise(np.full((300, 300), 0.5, np.float32), parse_noise_spec(spec), index=3)
    assert sigma == pytest.approx(255 * noisy.std(), rel=0.02)


def test_sigma_is_not_told_for_other_noise(gray_set):
    method = Recorder()
    result = evaluate([method], clean=[gray_set], noises=["speckle:0.1"])
    assert {sigma for _, sigma in method.calls} == {None}
    assert result.means()[0].sigma is None


def test_identical_results_are_infinite_and_left_out_of_the_mean(tmp_path):
    folder = folder_of(tmp_path / "set", {"a.png": np.full((8, 8), 128, np.uint8), "b.png": np.zeros((8, 8), np.uint8)})
    result = evaluate([Recorder(result=lambda noisy: np.zeros_like(noisy))], clean=[folder], noises=["gaussian:1"])
    assert [s.psnr for s in result.scores if s.method == "half"][1] == math.inf
    assert by_method(result.means())["half"].psnr == pytest.approx(10 * math.log10(255**2 / 128**2))


def test_16_bit_files_are_measured_in_16_bits(tmp_path):
    clean = picture(0, 16, 16, dtype=np.uint16)
    folder = folder_of(tmp_path / "deep", {"a.png": clean})
    result = evaluate([Recorder(result=lambda noisy: noisy * 0 + 0.3)], clean=[folder], noises=["gaussian:1"])
    expected = peak_signal_noise_ratio(clean, np.full_like(clean, round(0.3 * 65535)), data_range=65535)
    assert by_method(result.means())["half"].psnr == pytest.approx(expected, abs=1e-4)


def test_a_grey_method_gets_colour_files_as_grey_by_rec_601(tmp_path):
    color = picture(0, 16, 16, 3)
    folder = folder_of(tmp_path / "Kodak24", {"a.png": color})
    gray, both = Recorder("gray", 1), Recorder("both", None)
    result = evaluate([gray, both], clean=[folder], noises=["gaussian:0"])
    expected = (color @ np.array([0.299, 0.587, 0.114])) / 255
    for method in (gray, both):
        assert {seen.ndim for seen, _ in method.calls} == {2}
        np.testing.assert_allclose(method.calls[-1][0], expected, atol=1 / 255)
    assert {score.channels for score in result.scores} == {1}


def test_grey_and_colour_methods_are_measured_apart_each_with_its_own_noisy_row(tmp_path):
    folder = folder_of(tmp_path / "s", {"a.png": picture(0, 16, 16, 3)})
    methods = [Recorder("gray", 1), Recorder("color", 3), Recorder("both", None)]
    means = evaluate(methods, clean=[folder], noises=["gaussian:10", "gaussian:20"]).means()
    rows = [(m.noise, m.channels, m.method) for m in means]
    one = [(3, "noisy"), (3, "color"), (3, "both"), (1, "noisy"), (1, "gray"), (1, "both")]
    assert rows == [(noise, *row) for noise in ("gaussian:10", "gaussian:20") for row in one]


def test_a_colour_method_on_grey_files_is_left_out_with_a_note(gray_set):
    method = Recorder("color", 3)
    result = evaluate([method], clean=[gray_set], noises=["gaussian:10"])
    assert not method.calls and {m.method for m in result.means()} == {"noisy"}
    assert result.notes == ("color takes colour images only: not run on Set12",)


def test_noise_of_colour_sensors_is_measured_on_colour_alone_with_a_note(tmp_path):
    folder_of(tmp_path / "set", {"a.png": picture(1, 24, 32, 3), "b.png": picture(2, 24, 32)})
    methods = [Recorder("grey", 1), Recorder("colour", 3)]
    camera = "camera:gain=0.001,read=0.01,luma=0.6,chroma=1.5"
    found = evaluate(methods, clean=[tmp_path / "set"], noises=[camera, "gaussian:25"])
    measured = {(score.image, score.channels, score.noise) for score in found.scores}
    assert {(image, channels) for image, channels, noise in measured if noise == camera} == {("a", 3)}
    assert {(image, channels) for image, channels, noise in measured if noise != camera} == {
        ("a", 3),
        ("a", 1),
        ("b", 1),
    }
    assert found.notes == (f"{camera} goes on colour images only: not measured on others",)
    with pytest.raises(NoiseSpecError, match="camera: needs RGB images"):
        evaluate(methods[:1], clean=[tmp_path / "set"], noises=["gaussian:25", camera])


def test_a_grey_bmp_whose_header_has_a_palette_is_measured(tmp_path):
    Image.fromarray(picture(1, 24, 32)).save(tmp_path / "a.bmp")
    found = evaluate([Recorder("grey", 1)], clean=[tmp_path], noises=["gaussian:25"])
    assert {(score.method, score.channels) for score in found.scores} == {("noisy", 1), ("grey", 1)}


def test_an_image_too_small_for_the_noise_is_left_out_by_name(tmp_path):
    folder_of(tmp_path / "set", {"a.png": picture(1, 24, 32, 3), "b.png": picture(2, 4, 32, 3)})
    found = evaluate(
        [Recorder("colour", 3)], clean=[tmp_path / "set"], noises=["camera:gain=0.001,read=0.01,luma=1,chroma=2"]
    )
    assert {score.image for score in found.scores} == {"a"}
    assert len(found.failures) == 1 and "b.png: camera: needs more than 6 pixels a side" in found.failures[0]


def test_our_model_is_called_with_sigma_in_8_bit_units():
    seen = []

    def denoiser(noisy, sigma):
        seen.append(sigma)
        return noisy.astype(np.float64) / 2

    result = ModelMethod("gray", 1, denoiser)(np.ones((2, 2), np.float32), 15.0)
    assert seen == [15.0] and result.dtype == np.float32 and (result == 0.5).all()


@pytest.mark.parametrize(
    ("result", "words"),
    [(lambda x: x[:-1], r"broken.*Set12/00"), (lambda x: x * np.nan, r"broken.*not finite.*Set12/00")],
)
def test_a_method_that_breaks_its_contract_is_named(gray_set, result, words):
    with pytest.raises(DenoiseError, match=words):
        evaluate([Recorder("broken", None, result)], clean=[gray_set], noises=["gaussian:10"])


def test_against_reads_names_and_weights(tmp_path):
    torch.save({"model.0.weight": torch.zeros(1, 1, 3, 3), "model.0.bias": torch.zeros(1)}, tmp_path / "dncnn_25.pth")
    methods = parse_against(f"nlm, tv,dncnn={tmp_path / 'dncnn_25.pth'}")
    assert [(m.name, m.channels) for m in methods] == [("nlm", None), ("tv", None), ("dncnn:dncnn_25", 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("median", "unknown method 'median'.*bm3d.*dncnn=FILE"),
        ("", "unknown method ''"),
        ("nlm,nlm", "different names.*nlm"),
        ("dncnn", "needs its weights.*dncnn=FILE"),
        ("ffdnet=", "needs its weights"),
        ("nlm=x.mat", "takes no weights"),
        ("dncnn=missing.pth", "there is no file missing.pth"),
    ],
)
def test_mistakes_in_against_are_refused_with_the_mend(text, words):
    with pytest.raises(UsageError, match=words):
        parse_against(text)


def test_requests_that_cannot_be_carried_out_are_refused_before_any_work(gray_set, tmp_path):
    (tmp_path / "empty").mkdir()
    method = Recorder()
    for error, request in (
        (UsageError, {}),
        (UsageError, {"clean": [gray_set]}),
        (UsageError, {"noises": ["gaussian:25"], "pairs": [(gray_set, gray_set)]}),
        (UsageError, {"clean": [tmp_path / "missing"], "noises": ["gaussian:25"]}),
        (UsageError, {"clean": [gray_set, tmp_path / "empty"], "noises": ["gaussian:25"]}),
        (NoiseSpecError, {"clean": [gray_set], "noises": ["gaussian:25", "gausian:25"]}),
    ):
        with pytest.raises(error):
            evaluate([method], **request)
    with pytest.raises(UsageError, match="different names"):
        evaluate([method, Recorder()], clean=[gray_set], noises=["gaussian:25"])
    assert not method.calls


def test_time_is_of_the_call_and_progress_is_told(gray_set, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("denoise_se.evaluation.time.perf_counter", lambda: next(clock))
    steps = []
    result = evaluate([Recorder()], clean=[gray_set], noises=["gaussian:5"], on_progress=lambda *s: steps.append(s))
    row = by_method(result.means())["half"]
    pixels = 20 * (24 + 25 + 26)
    assert row.seconds_per_megapixel == pytest.approx(3e6 / pixels)  # the clock ticks one second in each of three calls
    assert steps == [(i + 1, 3, f"Set12/{i:02d} gaussian:5") for i in range(3)]
    assert result.threads == torch.get_num_threads() and result.machine


def test_all_methods_work_with_the_cores_that_were_granted(gray_set, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("denoise_se.evaluation.granted_cores", lambda: 3)  # a container's quota, say
    try:
        result = evaluate([Recorder()], clean=[gray_set], noises=["gaussian:5"])
        assert result.threads == torch.get_num_threads() == cv2.getNumThreads() == 3
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(before)


def test_it_can_be_interrupted(gray_set):
    def stop(done, total, label):
        raise KeyboardInterrupt

    method = Recorder()
    with pytest.raises(KeyboardInterrupt):
        evaluate([method], clean=[gray_set], noises=["gaussian:5"], on_progress=stop)
    assert len({seen.shape for seen, _ in method.calls}) == 1


@pytest.mark.parametrize("told", [True, False])
def test_the_error_of_an_estimated_psnr_is_reported_beside_the_true_one(tmp_path, told):
    soft = [gaussian_filter(picture(i, 160, 160).astype(float), 8) * 3 - 255 for i in range(3)]
    folder = folder_of(
        tmp_path / "soft", {f"{i}.png": np.clip(p, 70, 180).astype(np.uint8) for i, p in enumerate(soft)}
    )
    calls = []

    def denoiser(noisy, sigma):
        calls.append(sigma)
        return gaussian_filter(noisy, 0.8)

    model, other = ModelMethod("smooth", 1, denoiser), Recorder()
    result = evaluate([model, other], clean=[folder], noises=["gaussian:25"], tell_sigma=told, estimate_quality=True)
    ours = [score for score in result.scores if score.method == "smooth"]
    assert all(score.estimate is None for score in result.scores if score.method != "smooth")
    errors = [score.estimate.psnr - score.psnr for score in ours]
    (error,) = estimate_errors(result.scores)
    assert (error.images, error.estimates, error.told) == (3, 3, 25.0 if told else None)
    assert error.mean == pytest.approx(np.mean(errors)) and error.median_absolute == np.median(np.abs(errors))
    assert abs(error.worst) == np.abs(errors).max() < 0.5
    # the image itself, once for the warm-up, and disturbed, at one and the same level
    assert (calls[1] == 25.0) if told else (calls[1] is None and calls[2] == pytest.approx(25, rel=0.05))
    text = tmp_path / "r.csv"
    write_report(text, result)
    rows = list(csv.DictReader(io.StringIO(text.read_text())))
    assert [float(row["psnr_estimated"]) for row in rows if row["method"] == "smooth"] == [
        pytest.approx(score.estimate.psnr) for score in ours
    ]
    for name, words in (("r.json", "estimate_errors"), ("r.md", "within margin")):
        write_report(tmp_path / name, result)
        assert words in (tmp_path / name).read_text()


def test_the_worst_error_may_be_one_below_the_truth(gray_set):
    (score,) = evaluate([], clean=[gray_set], noises=["gaussian:25"]).scores[:1]
    errors_and_margins = ((1.0, 0.5), (-2.0, 1.0), (-0.4, 0.5))  # the last alone lies within its margin
    scores = [
        replace(score, estimate=QualityEstimate(score.psnr + error, margin)) for error, margin in errors_and_margins
    ]
    (found,) = estimate_errors(scores)
    assert found.worst == pytest.approx(-2.0) and found.covered == 1 and found.median_absolute == pytest.approx(1.0)
