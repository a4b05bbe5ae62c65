"""Measuring side by side: the Gaussian protocol worked out by hand, pairs, grey and colour, reports and crops."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio
from tiny_model import save_tiny

from denoise_se.app.cli import main
from denoise_se.app.console import table_console
from denoise_se.crops import SIDE, best_crops, crops_png, cut_crop
from denoise_se.denoiser import Denoiser
from denoise_se.errors import DenoiseError, NoiseSpecError, UsageError
from denoise_se.estimate_error import estimate_errors
from denoise_se.evaluation import evaluate
from denoise_se.evaluation_methods import ModelMethod, parse_against
from denoise_se.evaluation_report import check_outputs, render, save_crops, write_report
from denoise_se.evaluation_set import add_noise
from denoise_se.noise import parse_noise_spec
from denoise_se.published import CITATIONS, PUBLISHED, published
from denoise_se.quality import QualityEstimate


class Recorder:
    """Halves the contrast, and keeps what it was called with."""

    def __init__(self, name="half", channels=None, result=lambda noisy: 0.25 + noisy / 2):
        self.name, self.channels, self.result, self.calls = name, channels, result, []

    def __call__(self, noisy, sigma):
        self.calls.append((noisy.copy(), sigma))
        return self.result(noisy).astype(np.float32)


def picture(seed, *shape, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def folder_of(path, images):
    for name, pixels in images.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return path


@pytest.fixture
def gray_set(tmp_path):
    return folder_of(tmp_path / "Set12", {f"{i:02d}.png": picture(i, 20, 24 + i) for i in range(3)})


def by_method(rows):
    return {row.method: row for row in rows}


# --- the protocol -----------------------------------------------------------------------------


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


# --- pairs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_model_is_measured_on_pairs_as_it_denoises_such_files(tmp_path, dtype):
    """Counts of 10 bits in 16 are brightened there, dark pictures of 8 bits are not."""
    clean = picture(0, 40, 40) // 8
    noisy = clean + picture(1, 40, 40) // 32
    scale = 1 if dtype == np.uint8 else 20
    files = {"noisy": noisy.astype(dtype) * scale, "clean": clean.astype(dtype) * scale}
    folders = [folder_of(tmp_path / name, {"a.png": pixels}) for name, pixels in files.items()]
    denoiser = Denoiser.load(save_tiny(tmp_path / "m.safetensors", channels=1, noise_map=False), backend="torch")
    result = evaluate([ModelMethod("tiny", 1, denoiser)], pairs=[tuple(folders)])
    expected = peak_signal_noise_ratio(files["clean"], denoiser(files["noisy"]), data_range=np.iinfo(dtype).max)
    assert by_method(result.means())["tiny"].psnr == pytest.approx(expected, abs=1e-3)
    brightest = max(panel.pixels.max() for panel in result.crops[0].panels)
    assert brightest < 64 if dtype == np.uint8 else brightest > 100  # as a viewer shows such files


def test_pairs_are_matched_by_subfolder_and_stem(tmp_path):
    clean, noisy = picture(0, 12, 14, 3), picture(1, 12, 14, 3)
    folder_of(tmp_path / "PolyU" / "noisy", {"x/a.png": noisy, "y/a.png": clean})
    folder_of(tmp_path / "PolyU" / "clean", {"x/a.bmp": clean, "y/a.bmp": clean})
    method = Recorder()
    result = evaluate([method], pairs=[(tmp_path / "PolyU" / "noisy", tmp_path / "PolyU" / "clean")])
    scores = {(s.method, s.image): s for s in result.scores}
    assert scores["noisy", "x/a"].psnr == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=255), abs=1e-9)
    assert scores["noisy", "y/a"].psnr == math.inf
    assert {s.test_set for s in result.scores} == {"PolyU"} and {s.noise for s in result.scores} == {"real"}
    assert {sigma for _, sigma in method.calls} == {None}


def test_all_files_without_a_partner_are_listed(tmp_path):
    folder_of(tmp_path / "n", {"a.png": picture(0, 8, 8), "b.png": picture(0, 8, 8)})
    folder_of(tmp_path / "c", {"a.png": picture(0, 8, 8), "c.png": picture(0, 8, 8)})
    with pytest.raises(UsageError) as caught:
        evaluate([], pairs=[(tmp_path / "n", tmp_path / "c")])
    assert str(tmp_path / "n" / "b.png") in str(caught.value) and str(tmp_path / "c" / "c.png") in str(caught.value)


def test_a_pair_of_different_sizes_is_refused_by_name(tmp_path):
    folder_of(tmp_path / "n", {"a.png": picture(0, 8, 9)})
    folder_of(tmp_path / "c", {"a.png": picture(0, 8, 8)})
    with pytest.raises(UsageError, match=r"a\.png.*9x8.*8x8"):
        evaluate([], pairs=[(tmp_path / "n", tmp_path / "c")])


def test_each_page_of_a_stack_is_measured_with_the_same_page_of_its_partner(tmp_path):
    clean, noisy = picture(0, 3, 12, 14, dtype=np.uint16), picture(1, 3, 12, 14, dtype=np.uint16)
    for side, pages in (("n", noisy), ("c", clean)):
        folder_of(tmp_path / side, {"a.png": picture(2, 12, 14)})
        tifffile.imwrite(tmp_path / side / "b.tif", pages, photometric="minisblack")
    scores = evaluate([], pairs=[(tmp_path / "n", tmp_path / "c")]).scores
    assert [s.image for s in scores] == ["a", "b, page 1", "b, page 2", "b, page 3"]
    for score, truth, shot in zip(scores[1:], clean, noisy, strict=True):
        assert score.psnr == pytest.approx(peak_signal_noise_ratio(truth, shot, data_range=65535), abs=1e-9)


def test_pages_of_a_clean_stack_get_noise_of_their_own(tmp_path):
    (tmp_path / "c").mkdir()
    tifffile.imwrite(tmp_path / "c" / "b.tif", np.stack([picture(0, 24, 24)] * 2), photometric="minisblack")
    folder_of(tmp_path / "c", {"a.png": picture(0, 24, 24)})
    method = Recorder()
    evaluate([method], clean=[tmp_path / "c"], noises=["gaussian:25"])
    measured = [noisy for noisy, _ in method.calls[1:]]  # the first call warms up
    model = parse_noise_spec("gaussian:25")
    expected = [add_noise(picture(0, 24, 24) / np.float32(255), model, index)[0] for index in range(3)]
    assert all(np.array_equal(a, b) for a, b in zip(measured, expected, strict=True))


def test_stacks_of_different_lengths_are_refused_by_name(tmp_path):
    for side, count in (("n", 3), ("c", 2)):
        (tmp_path / side).mkdir()
        tifffile.imwrite(tmp_path / side / "s.tif", picture(0, count, 12, 14), photometric="minisblack")
    with pytest.raises(UsageError, match=r"n/s\.tif: has 3 page\(s\), but its clean partner .*c/s\.tif has 2"):
        evaluate([], pairs=[(tmp_path / "n", tmp_path / "c")])


def test_a_damaged_image_is_left_out_by_name_and_the_others_are_measured(tmp_path, capsys, monkeypatch):
    folder_of(tmp_path / "c", {f"{name}.png": picture(seed, 24, 24) for seed, name in enumerate("abc")})
    whole = (tmp_path / "c/b.png").read_bytes()
    (tmp_path / "c/b.png").write_bytes(whole[: len(whole) * 2 // 3])
    report = tmp_path / "r.json"
    arguments = ["evaluate", "--clean", str(tmp_path / "c"), "--noise", "gaussian:25", "--noise", "gaussian:50"]
    monkeypatch.setattr("sys.argv", ["denoise-se", *arguments, "--against", "nlm", "--report", str(report)])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    assert end.value.code == 1 and shown.err.count(f"denoise-se: {tmp_path / 'c/b.png'}: ") == 1
    assert "not measured:" in shown.out
    found = json.loads(report.read_text())
    assert {image["image"] for image in found["images"]} == {"a", "c"} and len(found["failures"]) == 1
    with pytest.raises(DenoiseError, match=r"no image could be measured[\s\S]*b\.png"):
        for name in "ac":
            (tmp_path / f"c/{name}.png").unlink()
        evaluate([], clean=[tmp_path / "c"], noises=["gaussian:25"])


# --- grey and colour --------------------------------------------------------------------------


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


# --- methods ----------------------------------------------------------------------------------


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


# --- reports ----------------------------------------------------------------------------------


@pytest.fixture
def measured(gray_set):
    return evaluate([Recorder("a|b"), Recorder("same", result=lambda x: x)], clean=[gray_set], noises=["gaussian:25"])


def test_the_csv_has_a_row_for_each_image_and_method(measured, tmp_path):
    write_report(tmp_path / "r.csv", measured)
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert [(r["image"], r["method"]) for r in rows] == [
        (image, method) for image in ("00", "01", "02") for method in ("noisy", "a|b", "same")
    ]
    assert float(rows[1]["psnr"]) == measured.scores[1].psnr and rows[0]["width"] == "24"


def test_the_json_holds_means_images_and_conditions(tmp_path):
    folder = folder_of(tmp_path / "Set12", {"a.png": np.zeros((4, 4), np.uint8)})
    result = evaluate([Recorder("zero", result=lambda x: 0 * x)], clean=[folder], noises=["gaussian:25"])
    write_report(tmp_path / "r.json", result)
    data = json.loads((tmp_path / "r.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert data["images"][1]["psnr"] == "inf" and data["images"][1]["ssim"] is None
    assert data["means"][1]["psnr"] is None and data["threads"] == torch.get_num_threads()
    assert {row["method"] for row in data["published_not_remeasured"]} == set(CITATIONS)


def test_markdown_and_terminal_show_measured_and_published_apart(measured, tmp_path):
    write_report(tmp_path / "r.md", measured)
    markdown = (tmp_path / "r.md").read_text()
    console = Console(file=io.StringIO(), width=200)
    console.print(render(measured))
    shown = console.file.getvalue()
    psnr = f"{by_method(measured.means())['same'].psnr:.2f}"
    for text in (markdown, shown):
        before, _, after = text.partition("Published, not re-measured")
        assert psnr in before and "Restormer" not in before
        assert "Restormer" in after and "31.08" in after
    assert "a\\|b" in markdown and "Zamir" in markdown


def test_no_published_block_for_an_unknown_set_or_sigma(gray_set, tmp_path):
    unknown = folder_of(tmp_path / "my", {"a.png": picture(0, 9, 9)})
    for folder, noise in ((gray_set, "gaussian:30"), (gray_set, "gaussian:15-25"), (unknown, "gaussian:25")):
        result = evaluate([], clean=[folder], noises=[noise])
        write_report(tmp_path / "r.md", result)
        assert "Published" not in (tmp_path / "r.md").read_text()


def test_a_report_is_written_whole_or_not_at_all(measured, tmp_path, monkeypatch):
    (tmp_path / "r.md").write_text("old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DenoiseError, match=r"r\.md.*No space left"):
        write_report(tmp_path / "r.md", measured)
    assert (tmp_path / "r.md").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Set12", "r.md"]


@pytest.mark.parametrize(
    ("report", "crops"), [("r.exe", None), (None, "c.jpg"), ("missing/r.csv", None), ("d.csv", None)]
)
def test_outputs_that_cannot_be_written_are_refused_before_work(tmp_path, report, crops):
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(UsageError, match=r"use \.|name a file in a folder that exists|give a file name"):
        check_outputs(tmp_path / report if report else None, tmp_path / crops if crops else None)
    check_outputs(tmp_path / "r.CSV", tmp_path / "c.png")
    check_outputs(None, None)


def test_a_picture_of_crops_never_lies_among_the_measured_ones(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("a.png", "new.png"):
        with pytest.raises(UsageError, match="whose pictures are measured"):
            check_outputs(None, tmp_path / "set" / name, [tmp_path / "set"])
    check_outputs(None, tmp_path / "crops.png", [tmp_path / "set"])


@pytest.mark.parametrize("suffix", [".json", ".csv", ".md"])
def test_names_that_are_no_unicode_do_not_cost_the_report(tmp_path, suffix):
    folder = folder_of(tmp_path / "set", {"x\udcff.png": picture(0, 32, 32)})
    write_report(tmp_path / f"r{suffix}", evaluate(parse_against("tv"), clean=[folder], noises=["gaussian:25"]))
    assert (tmp_path / f"r{suffix}").stat().st_size > 100


def test_published_figures_are_those_of_the_papers():
    assert published("set12", 1, 25)["DnCNN"] == 30.44
    assert published("CBSD68", 3, 50.0)["Restormer"] == 28.60
    assert published("Urban100", 1, 15)["Xformer"] == 33.98 and published("Urban100", 3, 15)["Xformer"] == 35.29
    assert published("Set12", 3, 25) == published("Set12", 1, 20) == published("other", 1, 25) == {}
    for rows in PUBLISHED.values():
        assert set(rows) == set(CITATIONS)
        assert all(values[0] > values[1] > values[2] > 26 for values in rows.values())


# --- crops ------------------------------------------------------------------------------------


def test_the_crop_lies_where_the_methods_differ_most():
    clean = np.full((300, 400), 0.5, np.float32)
    one, other = clean.copy(), clean.copy()
    one[150:170, 310:330] = 0.9
    crop = cut_crop("set gaussian:25", "a", clean, clean, {"one": one, "other": other})
    assert [panel.label for panel in crop.panels] == ["noisy", "one", "other", "clean"]
    shown = crop.panels[1].pixels
    assert shown.shape == (SIDE, SIDE) and (shown == 230).sum() == 20 * 20
    assert crop.panels[1].psnr == pytest.approx(10 * math.log10(255**2 / (102**2 * 400 / SIDE**2)))
    assert crop.panels[2].psnr == math.inf and crop.panels[3].psnr is None
    assert crop.difference == pytest.approx(0.2 * 400 / SIDE**2, rel=1e-4)


def test_the_crop_of_a_single_method_lies_where_it_errs_and_small_images_are_shown_whole():
    clean = np.zeros((200, 20, 3), np.float32)
    result = clean.copy()
    result[190:, :, 1] = 1
    crop = cut_crop("g", "a", clean, clean, {"one": result})
    assert crop.panels[1].pixels.shape == (SIDE, 20, 3) and crop.panels[1].pixels[-10:, :, 1].min() == 255


def test_the_best_crops_come_from_all_groups():
    flat = np.zeros((8, 8), np.float32)
    sizes = (("s50", 0.9), ("s50", 0.8), ("s50", 0.7), ("s15", 0.1), ("s15", 0.2))
    crops = [cut_crop(group, str(size), flat, flat, {"m": flat + size}) for group, size in sizes]
    assert [(c.group, c.image) for c in best_crops(crops, 3)] == [("s50", "0.9"), ("s15", "0.2"), ("s50", "0.8")]


def test_the_picture_of_crops_shows_the_pixels(measured, tmp_path):
    save_crops(tmp_path / "c.png", measured)
    sheet = Image.open(tmp_path / "c.png")
    assert sheet.format == "PNG" and sheet.mode == "RGB"
    red = np.zeros((96, 96, 3), np.float32)
    red[..., 0] = 1
    crop = cut_crop("g", "a", red * 0, red * 0, {"m": red})
    with Image.open(io.BytesIO(crops_png([crop]))) as image:
        colors = {color: count for count, color in image.getcolors(1 << 20)}
    assert colors[(255, 0, 0)] == (2 * 96) ** 2
    assert crops_png([])


# --- estimated PSNR ---------------------------------------------------------------------------


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


def test_a_table_in_a_file_keeps_all_its_columns_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")  # of the terminal that does not read it
    names = [f"column {number}" for number in range(12)]
    table_console().print(Table(*names))
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
