"""The table, CSV, JSON and HTML of a batch."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from denoise_se.errors import ImageError, UsageError
from denoise_se.html_report import as_html
from denoise_se.report import (
    COLUMNS,
    FIELDS,
    METRICS,
    Row,
    as_csv,
    as_json,
    as_table,
    check_report,
    means,
    write_report,
)

DONE = Row("in/a.png", "out/a.png", "done", "", 8, 6, 3, 8, "color", 25.0, 0.5, 20.0, 30.0, 0.5, 0.9)
SAME = replace(DONE, input="in/same.png", psnr_noisy=math.inf, psnr=math.inf, ssim_noisy=1.0, ssim=1.0)
SMALL = replace(DONE, input="in/small.png", psnr=34.0, psnr_noisy=24.0, ssim=None, ssim_noisy=None)
FAILED = Row('in/bad, "one".png', "out/bad.png", "failed", "is cut short\nafter 3 rows")
ROWS = (DONE, SAME, SMALL, FAILED)
MARKUP = Row("in/[red]x[bold].png", "out/[/nothing] :smile: <b>&.png", "failed", "<script>alert(1)</script> 画像")


def printed(rows: tuple[Row, ...]) -> str:
    text = io.StringIO()
    Console(file=text, width=160, markup=False, emoji=False).print(as_table(rows))
    return text.getvalue()


def test_the_csv_has_the_columns_of_the_contract_in_order() -> None:
    contract = (
        "input,output,status,error,width,height,channels,bit_depth,model,sigma,seconds,psnr_noisy,psnr,ssim_noisy,ssim"
    )
    assert as_csv(ROWS).splitlines()[0] == contract
    assert ",".join(COLUMNS) == contract


def test_estimates_stand_after_the_contract_s_columns_of_a_csv_when_asked_for() -> None:
    row = replace(DONE, noise_before=9.5, noise_after=1.25, psnr_estimated=29.5, psnr_margin=0.5)
    lines = as_csv([row], estimates=True).splitlines()
    assert lines[0] == ",".join(COLUMNS) + ",noise_before,noise_after,psnr_estimated,psnr_margin,psnr_estimated_reason"
    assert lines[1].endswith(",9.5,1.25,29.5,0.5,")
    assert as_csv([row]) == as_csv([DONE])


def test_the_csv_reads_back_with_commas_quotes_and_line_breaks() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(ROWS), newline="")))
    assert [row["input"] for row in rows] == [row.input for row in ROWS]
    assert rows[3]["error"] == FAILED.error and rows[3]["width"] == "" and rows[3]["psnr"] == ""
    assert float(rows[0]["psnr"]) == 30.0 and rows[1]["psnr"] == "inf" and rows[2]["ssim"] == "n/a"


def test_means_leave_out_what_is_infinite_or_missing() -> None:
    found = means(ROWS)
    assert {name: found[name] for name in METRICS} == {"psnr_noisy": 22, "psnr": 32, "ssim_noisy": 0.75, "ssim": 0.95}
    assert set(means((FAILED,)).values()) == {None}
    assert means((replace(DONE, noise_before=4.0), replace(DONE, noise_before=2.0), FAILED))["noise_before"] == 3.0


def test_the_json_is_strict_and_spells_infinity() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = json.loads(as_json(ROWS), parse_constant=refuse)
    assert [row["psnr"] for row in read["rows"]] == [30.0, "inf", 34.0, None]
    assert list(read["rows"][0]) == list(FIELDS)
    assert read["means"]["psnr"] == 32.0


def test_the_terminal_table_shows_names_letter_for_letter() -> None:
    text = printed((MARKUP, replace(DONE, input="in/画像 1.png")))
    assert "[red]x[bold].png" in text and "画像 1.png" in text


def test_the_terminal_table_tells_files_of_one_name_apart() -> None:
    rows = tuple(replace(DONE, input=f"/photos/{name}") for name in ("2025/may/a.png", "2025/june/a.png", "2024/a.png"))
    text = printed(rows)
    assert all(name in text for name in ("2025/may/a.png", "2025/june/a.png", " 2024/a.png")) and "photos" not in text
    assert " a.png" in printed(rows[:1]) and "may" not in printed(rows[:1])
    mixed = printed((replace(DONE, input="a.png"), replace(DONE, input="s3://shots/a.png")))
    assert " a.png" in mixed and "s3://shots/a.png" in mixed


def test_the_terminal_table_says_why_there_is_no_estimate_and_how_often() -> None:
    refused = [replace(DONE, input=f"{i}.png", psnr_estimated_reason="no noise was found") for i in range(3)]
    text = printed((*refused, replace(DONE, psnr_estimated_reason="the image is too small")))
    assert "PSNR not estimated for 3: no noise was found" in text
    assert "PSNR not estimated for 1: the image is too small" in text
    many = printed(tuple(replace(DONE, psnr_estimated_reason=f"{i}% of the pixels") for i in range(300)))
    assert "and for 297 more reasons" in many and len(many.splitlines()) < 40


def test_the_terminal_table_puts_failures_first_and_stops_after_twenty() -> None:
    lines = printed((*(replace(DONE, input=f"{i:02d}.png") for i in range(24)), FAILED)).splitlines()
    first = next(line for line in lines if ".png" in line)
    assert "bad" in first
    text = "\n".join(lines)
    assert "18.png" in text and "19.png" not in text and "and 5 more" in text
    assert "30.00" in next(line for line in lines if "mean" in line)


def test_the_terminal_table_says_where_a_metric_does_not_apply() -> None:
    line = next(line for line in printed(ROWS).splitlines() if "small.png" in line)
    assert line.count("n/a") == 2
    assert "psnr" not in printed((FAILED,))


def test_an_estimate_that_cannot_be_given_is_told_apart_from_one_that_nobody_asked_for() -> None:
    refused = replace(DONE, psnr=None, psnr_noisy=None, ssim=None, ssim_noisy=None, psnr_estimated_reason="no noise")
    rows = list(csv.DictReader(io.StringIO(as_csv((refused, DONE), estimates=True))))
    assert [row["psnr_estimated"] for row in rows] == ["n/a", ""]
    assert [row["psnr"] for row in rows] == ["", "30.0"]


@pytest.mark.parametrize("name", ["r.csv", "r.JSON", "deep/er/r.html"])
def test_a_report_is_written_whole_and_replaces_the_old_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    check_report(path)
    for rows in (ROWS, (DONE,)):
        write_report(path, rows)
    assert "bad" not in path.read_text() and "a.png" in path.read_text()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["r.csv", "r.json", "r.html"])
def test_names_that_are_no_text_do_not_cost_the_report(tmp_path: Path, name: str) -> None:
    write_report(tmp_path / name, [replace(DONE, input="caf\udce9.png")])
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert "caf\\udce9.png" in text
    if name == "r.json":
        assert json.loads(text)["rows"][0]["input"] == "caf\udce9.png"


def test_report_names_that_cannot_be_written_are_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_bytes(b"")
    check_report(None)
    for name, part in (("r.exe", ".csv, .json, .html"), ("folder.csv", "folder"), ("file/r.csv", "file stands")):
        with pytest.raises(UsageError, match=part) as caught:
            check_report(tmp_path / name)
        assert name in str(caught.value)


def test_a_report_that_cannot_be_written_names_the_file_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ImageError, match=r"r\.csv: .*No space left"):
        write_report(tmp_path / "r.csv", ROWS)
    assert list(tmp_path.iterdir()) == []


def test_what_was_converted_stands_in_json_and_on_the_page_and_leaves_the_csv_as_it_is() -> None:
    row = DONE.noticed("16-bit image written as 8-bit <JPG>", "turned upright").noticed("turned upright")
    assert json.loads(as_json([row]))["rows"][0]["notices"] == ["16-bit image written as 8-bit <JPG>", "turned upright"]
    assert "<small>16-bit image written as 8-bit &lt;JPG&gt;</small><small>turned upright</small>" in as_html([row])
    assert as_csv([row]) == as_csv([DONE]) and as_csv([row], estimates=True) == as_csv([DONE], estimates=True)
