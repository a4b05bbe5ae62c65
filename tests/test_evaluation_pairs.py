"""Measuring on pairs of files: which belong together, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tifffile
from evaluation_sets import Recorder, by_method, folder_of, picture
from skimage.metrics import peak_signal_noise_ratio
from tiny_model import save_tiny

from denoise_se.app.cli import main
from denoise_se.denoiser import Denoiser
from denoise_se.errors import DenoiseError, UsageError
from denoise_se.evaluation import evaluate
from denoise_se.evaluation_methods import ModelMethod
from denoise_se.evaluation_set import add_noise
from denoise_se.noise import parse_noise_spec


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


def test_pairs_of_floats_beyond_0_to_1_are_measured_as_they_are(tmp_path):
    clean = 5000 * picture(0, 40, 40).astype(np.float32) - 2000
    for name, pixels in (("noisy", clean + 100), ("clean", clean)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", pixels, photometric="minisblack")
    result = evaluate([Recorder("same", result=lambda x: x)], pairs=[(tmp_path / "noisy", tmp_path / "clean")])
    assert by_method(result.means())["same"].psnr == pytest.approx(-40)  # an error of 100 where 1 is white


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
