"""Reports and crops of an evaluation."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from evaluation_sets import Recorder, by_method, folder_of, picture
from PIL import Image
from rich.console import Console
from rich.table import Table

from denoise_se.app.console import table_console
from denoise_se.crops import SIDE, best_crops, crops_png, cut_crop
from denoise_se.errors import DenoiseError, UsageError
from denoise_se.evaluation import evaluate
from denoise_se.evaluation_methods import parse_against
from denoise_se.evaluation_report import check_outputs, render, save_crops, write_report
from denoise_se.published import CITATIONS, PUBLISHED, published


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


def test_a_table_in_a_file_keeps_all_its_columns_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")  # of the terminal that does not read it
    names = [f"column {number}" for number in range(12)]
    table_console().print(Table(*names))
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
