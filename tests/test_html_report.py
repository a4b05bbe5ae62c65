"""The report's page: complete, escaped, self-contained, and within its budget of bytes."""

from __future__ import annotations

import html.parser
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from denoise_se.html_report import as_html
from denoise_se.preview import ALL_BYTES, Preview, PreviewMaker, picture_bytes
from denoise_se.report import Row, write_report

DONE = Row("in/a.png", "out/a.png", "done", "", 8, 6, 3, 8, "color", 25.0, 0.5, 20.0, 30.0, 0.5, 0.9)
SAME = replace(DONE, input="in/same.png", output="out/same.png", psnr_noisy=float("inf"), psnr=float("inf"))
FAILED = Row("in/bad.png", "out/bad.png", "failed", "is cut short\nafter 3 rows")
HOSTILE = (
    "in/<script>alert(1)<script>.png",
    'in/" onload="alert(1)" x=".png',
    "in/' onerror='alert(1).png",
    "in/</td></table></script><!--.png",
    "in/{{body}}&lt;{0}%s.png",
    "in/caf\udce9.png",
    "in/画像 \u202egnp.png",
)


class Page(html.parser.HTMLParser):
    """The tags with their attributes, and the text of each row of the table's body."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("tbody", "tfoot"):
            self.inside = tag == "tbody"
        if tag == "tr" and self.inside:
            self.rows.append("")

    def handle_data(self, data: str) -> None:
        if self.inside and self.rows:
            self.rows[-1] += data


def preview(most: int = 20_000) -> Preview:
    noisy = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    maker = PreviewMaker(40, 60, 3, most=most)
    maker.add(0, noisy, noisy // 2)
    return maker.finish()


def test_failed_rows_come_first_and_all_figures_are_there() -> None:
    text = as_html([DONE, SAME, FAILED], settings={"model": "color", "sigma": 25})
    rows = Page(text).rows
    assert [("bad.png" in rows[0]), ("a.png" in rows[1]), ("same.png" in rows[2])] == [True] * 3
    assert FAILED.error in rows[0] and "8×6" in rows[1] and "30.00" in rows[1] and "0.9000" in rows[1]
    assert "inf" in rows[2]
    # the mean of 20 and of 30 alone, as infinite values are left out
    assert "20.00 → 30.00" in text
    assert "<td>sigma</td><td>25</td>" in text


def test_columns_without_a_value_are_left_out() -> None:
    plain = replace(DONE, psnr=None, psnr_noisy=None, ssim=None, ssim_noisy=None)
    assert "PSNR" not in " ".join(Page(as_html([plain])).rows) and ">PSNR after<" not in as_html([plain])
    assert ">noise before<" in as_html([replace(plain, noise_before=3.0, noise_after=1.0)])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_and_messages_stay_text(tmp_path: Path, name: str) -> None:
    rows = [replace(DONE, input=name, output=name, error=name, psnr_estimated_reason=name), FAILED]
    write_report(tmp_path / "r.html", rows, previews={name: preview()}, settings={name: name})
    hostile = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    harmless = [replace(row, input="in/x.png") for row in rows]
    harmless[0] = replace(harmless[0], output="out/x.png", error="x", psnr_estimated_reason="x")
    expected = Page(as_html(harmless, {"out/x.png": preview()}, {"x": "x"}))
    assert [tag for tag, _ in hostile.tags if tag != "bdi"] == [tag for tag, _ in expected.tags if tag != "bdi"]
    # no attribute was broken out of
    assert {key for _, attrs in hostile.tags for key in attrs} == {key for _, attrs in expected.tags for key in attrs}
    shown = name.removeprefix("in/").rpartition("/")[2].encode(errors="backslashreplace").decode()
    assert shown in hostile.rows[1]
    assert next(attrs for tag, attrs in hostile.tags if "data-name" in attrs)["data-name"] == shown


def test_the_page_asks_nothing_of_the_network() -> None:
    text = as_html([DONE], {DONE.output: preview()})
    tags = Page(text).tags
    policy = next(attrs["content"] for tag, attrs in tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:")
    assert not [tag for tag, attrs in tags if {"src", "href", "srcset", "action"} & attrs.keys() or tag == "link"]
    assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch\(|XMLHttpRequest", as_html([DONE]))


def test_headings_are_buttons_that_a_screen_reader_and_a_keyboard_reach() -> None:
    tags = Page(as_html([DONE], {DONE.output: preview()})).tags
    headings = [i for i, (tag, attrs) in enumerate(tags) if tag == "th" and attrs["class"] != "pictures text"]
    assert headings and all(tags[i + 1][0] == "button" and tags[i][1]["scope"] == "col" for i in headings)
    pairs = [attrs for tag, attrs in tags if tag == "button" and attrs.get("class") == "pair"]
    assert [pair["aria-label"] for pair in pairs] == ["Compare a.png before and after"]


def test_pictures_wait_as_text_until_they_come_into_view() -> None:
    made = preview()
    tags = Page(as_html([DONE, SAME], {DONE.output: made})).tags
    waiting = [attrs for tag, attrs in tags if tag == "img" and "data-bytes" in attrs]
    assert [b64decode(attrs["data-bytes"] or "") for attrs in waiting] == list(made.thumbnails)
    pair = next(attrs for _, attrs in tags if "data-box" in attrs)
    assert b64decode(pair["data-before"] or "") == made.crops[0] and pair["data-box"] == "0 0 60 40"


def test_ten_thousand_rows_make_a_page_of_at_most_eighty_megabytes() -> None:
    most = picture_bytes(10_000)
    assert most is not None and most * 10_000 <= ALL_BYTES
    made = preview(most)
    size = sum(map(len, (*made.thumbnails, *made.crops)))
    assert size <= most
    # pictures as large as they may be
    full = replace(made, thumbnails=(made.thumbnails[0], bytes(most - size + len(made.thumbnails[1]))))
    rows = [replace(DONE, input=f"in/{i:05d}.png", output=f"out/{i:05d}.png") for i in range(10_000)]
    text = as_html(rows, {row.output: full for row in rows})
    assert text.count('class="pair"') == 10_000
    assert len(text.encode()) < 80_000_000
