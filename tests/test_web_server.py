"""The web app from outside, without a browser: endpoints, limits, refusals, signals."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiny_model import save_tiny
from web_server import Server, serving

from denoise_se.app.web_options import WebOptions
from denoise_se.app.web_profile import enough
from denoise_se.blending import Strength
from denoise_se.errors import ImageError, UsageError
from denoise_se.image import Image
from denoise_se.image_io import write

pytest.importorskip("gradio", reason="the web extra is not installed")
pytestmark = pytest.mark.slow
SAMPLES = Path(__file__).parent.parent / "data" / "samples"
FILE = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Server]:
    options = ("--model", str(tiny), "--max-pixels", "2000000", "--max-upload", "8", "--queue", "4", "--tile", "32")
    with serving(tmp_path_factory.mktemp("web"), *options) as server:
        yield server


def client(server: Server):  # type: ignore[no-untyped-def]
    from gradio_client import Client

    return Client(server.url, verbose=False)


def upload(path: Path):  # type: ignore[no-untyped-def]
    from gradio_client import handle_file

    return handle_file(str(path))


def command_line(*arguments: str | Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "denoise_se.app", "denoise", "--quiet", "--tile", "32", *map(str, arguments)], check=True
    )


def sixteen_bit(folder: Path, side: int = 96) -> Path:
    pixels = np.random.default_rng(1).integers(20_000, 40_000, (side, side, 3)).astype(np.uint16)
    write(folder / "scan.tiff", Image(pixels, None, "tiff"))
    return folder / "scan.tiff"


@pytest.mark.parametrize(
    ("strength", "chroma", "sigma", "format"),
    [(1.0, None, None, "same"), (0.6, None, 12.0, "same"), (0.3, 0.9, None, "png"), (0.0, None, None, "same")],
)
def test_an_endpoint_gives_the_bytes_of_the_command_line(
    server: Server, tiny: Path, tmp_path: Path, strength: float, chroma: float | None, sigma: float | None, format: str
) -> None:
    noisy = sixteen_bit(tmp_path)
    result, report = client(server).predict(
        image=upload(noisy), reference=None, model=str(tiny), sigma=sigma, strength=strength,
        chroma_strength=chroma, format=format, api_name="/denoise",
    )  # fmt: skip
    options = ["--strength", str(strength)]
    options += [] if chroma is None else ["--chroma-strength", str(chroma)]
    options += [] if sigma is None else ["--sigma", str(sigma)]
    command_line(noisy, "-o", tmp_path / "out", "--model", tiny, "--format", format, *options)
    expected = next(path for path in (tmp_path / "out").iterdir() if path.stem == "scan")
    assert Path(result).name == expected.name
    assert Path(result).read_bytes() == expected.read_bytes()
    assert report["status"] == "done" and report["bit_depth"] == 16


def test_a_reference_gives_psnr_and_ssim(server: Server, tmp_path: Path) -> None:
    noisy, clean = SAMPLES / "noisy" / "camera.png", SAMPLES / "clean" / "camera.png"
    _, report = client(server).predict(image=upload(noisy), reference=upload(clean), api_name="/denoise")
    assert report["psnr_noisy"] == pytest.approx(20.3, abs=0.5) and 0 < report["ssim"] < 1


def test_many_files_come_as_one_zip_and_the_broken_one_is_named(server: Server, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    good = [shutil.copy(SAMPLES / "noisy" / name, tmp_path) for name in ("camera.png", "coffee.png")]
    archive, report = client(server).predict(
        images=[upload(Path(path)) for path in (*good, tmp_path / "broken.png")], api_name="/denoise_many"
    )
    rows = {row["input"]: row for row in report["rows"]}
    assert rows["broken.png"]["status"] == "failed" and rows["broken.png"]["error"]
    assert rows["camera.png"]["status"] == rows["coffee.png"]["status"] == "done"
    command_line(*good, "-o", tmp_path / "out", "--model", tiny)
    with zipfile.ZipFile(archive) as file:
        assert sorted(file.namelist()) == ["camera.png", "coffee.png", "report.csv", "report.html"]
        for name in ("camera.png", "coffee.png"):
            assert file.read(name) == (tmp_path / "out" / name).read_bytes()


def test_the_noise_is_estimated_and_the_models_are_listed(server: Server, tiny: Path) -> None:
    answers = client(server)
    noise = answers.predict(image=upload(SAMPLES / "noisy" / "camera.png"), api_name="/estimate")
    assert noise["sigma"] == pytest.approx(25, abs=3)
    assert noise["level"] == pytest.approx(noise["sigma"], abs=0.001)  # it is white
    assert list(answers.predict(api_name="/models")) == [tiny.stem]


def test_models_of_the_server_are_told_without_its_folders(server: Server, tiny: Path, tmp_path: Path) -> None:
    noisy = sixteen_bit(tmp_path)
    result, _ = client(server).predict(image=upload(noisy), model=tiny.stem, api_name="/denoise")
    command_line(noisy, "-o", tmp_path / "out.tiff", "--model", tiny)
    assert Path(result).read_bytes() == (tmp_path / "out.tiff").read_bytes()
    assert str(tiny.parent) not in server.get("/config")[1].decode()


def test_the_noise_is_measured_on_as_many_photos_as_the_server_takes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write(tmp_path / name, Image(np.zeros((100, 100, 1), np.uint8), None, "png"))
    photos = sorted(tmp_path.iterdir())
    assert enough(photos, 10_000) == photos
    with pytest.raises(ImageError, match=r"a\.png: has 10,000 pixels, and this server takes 9,999: make it smaller"):
        enough(photos, 9_999)
    stack = np.zeros((3, 100, 100), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    with pytest.raises(ImageError, match=r"a\.tif: has 30,000 pixels"):
        enough([tmp_path / "a.tif"], 20_000)


def test_two_models_of_one_name_are_refused_before_the_server_starts(tmp_path: Path) -> None:
    files = tuple(str(save_tiny(tmp_path / folder / "own.safetensors")) for folder in ("a", "b"))
    with pytest.raises(UsageError, match="two are called alike; rename"):
        WebOptions(models=files).check()
    twice = str(tmp_path / "a" / ".." / "a" / "own.safetensors")
    WebOptions(models=(files[0], files[0], twice, "gray")).check()


def test_an_own_model_keeps_its_name_beside_a_learned_one(tmp_path: Path) -> None:
    own = str(save_tiny(tmp_path / "photo.safetensors"))
    save_tiny(tmp_path / "shelf/photo/best.safetensors")
    options = WebOptions(models=(own, "gray-fast"), models_dir=tmp_path / "shelf")
    assert options.offered["photo"] == "own model" and options.offered["gray"] != "own model"
    assert options.request("photo", None, Strength(), "same").model == own


@pytest.mark.parametrize(
    ("options", "message"),
    [({"model": "/etc/passwd"}, "not offered"), ({"strength": 2}, "strength is 2"), ({"sigma": -1}, "sigma is -1"),
     ({"format": "gif"}, "format 'gif' is unknown")],
)  # fmt: skip
def test_a_wrong_option_is_refused_with_its_mend(server: Server, options: dict, message: str) -> None:
    with pytest.raises(Exception, match=message):
        client(server).predict(image=upload(SAMPLES / "noisy" / "camera.png"), **options, api_name="/denoise")


def test_too_many_pixels_and_too_many_bytes_are_refused(server: Server, tmp_path: Path) -> None:
    write(tmp_path / "wide.png", Image(np.zeros((1500, 1500, 1), np.uint8), None, "png"))
    with pytest.raises(Exception, match=r"wide\.png.* exceeds 2,000,000 pixels of this server"):
        client(server).predict(image=upload(tmp_path / "wide.png"), api_name="/denoise")
    _, report = client(server).predict(images=[upload(tmp_path / "wide.png")], api_name="/denoise_many")
    assert "2,000,000 pixels of this server: make it smaller" in report["rows"][0]["error"]
    (tmp_path / "large.tif").write_bytes(bytes(9_000_000))
    with pytest.raises(Exception, match=r"413|exceeds|maximum"):
        client(server).predict(image=upload(tmp_path / "large.tif"), api_name="/denoise")
    assert server.announce("/gradio_api/upload", 80_000_001) == 413


def test_no_folder_of_the_server_stands_in_a_message(server: Server, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(Exception) as caught:
        client(server).predict(image=upload(tmp_path / "text.png"), api_name="/denoise")
    assert "text.png" in str(caught.value) and str(server.cache) not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=/proc/self/environ",
        "/gradio_api/file={cache}/../../../../../etc/passwd",
        "/gradio_api/file=..%2f..%2f..%2fetc%2fpasswd",
        "/gradio_api/file=http://127.0.0.1:1/secret",
        "/gradio_api/proxy=http://169.254.169.254/latest/meta-data",
        "/monitoring",
        "/openapi.json",
    ],
)
def test_paths_and_addresses_outside_the_cache_are_not_served(server: Server, path: str) -> None:
    status, answer = server.get(path.format(cache=server.cache))
    assert status == 403 and b"root:" not in answer


@pytest.mark.parametrize(
    "path", ["http://127.0.0.1:1/x.png", "http://10.0.0.1/x.png", "file:///etc/passwd", "//example.org/x.png",
             "/etc/passwd", "../../etc/passwd", "http%3A//127.0.0.1/x"],
)  # fmt: skip
def test_an_input_that_is_an_address_or_a_foreign_path_is_refused(server: Server, path: str) -> None:
    for address in ("/gradio_api/call/denoise", "/gradio_api/queue/join"):
        status, _ = server.post(address, {"data": [{"path": path, "meta": FILE}], "session_hash": "x", "fn_index": 0})
        assert status == 403


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
     {"Origin": "http://127.0.0.1.evil.example"}],
)  # fmt: skip
def test_another_sites_page_can_neither_post_nor_read(server: Server, headers: dict[str, str]) -> None:
    assert server.post("/gradio_api/call/models", {"data": []}, headers)[0] == 403
    assert server.get("/config", headers)[0] == 403
    assert server.post("/gradio_api/call/models", {"data": []}, {"Origin": server.url})[0] == 200


def test_the_queue_cannot_be_skipped(server: Server) -> None:
    assert server.post("/gradio_api/run/denoise", {"data": []})[0] == 403
    assert server.post("/gradio_api/api/models", {"data": []})[0] == 403
    assert server.post("/gradio_api/run/predict", {"data": [], "fn_index": 3})[0] == 404  # /models, queued


def test_who_waits_for_an_event_that_there_is_not_is_told_and_does_not_fill_the_log(server: Server) -> None:
    log = server.cache.parent / "log"
    before = log.stat().st_size
    for _ in range(3):
        with pytest.raises(http.client.IncompleteRead) as told:  # Gradio ends its answer so
            server.get("/gradio_api/call/denoise/nosuch")
        assert b"event: error" in told.value.partial
    assert log.stat().st_size - before < 300


def test_what_is_malformed_is_refused_and_does_not_fill_the_log(server: Server) -> None:
    config = json.loads(server.get("/config")[1])
    log = server.cache.parent / "log"
    before = log.stat().st_size
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict"):
        for function in (*(one["id"] for one in config["dependencies"]), 99999, -1, None):
            for data in ([5] * 30, None):
                sent = {"data": data, "fn_index": function, "session_hash": "x"}
                assert 400 <= server.post(path, sent)[0] < 500, sent
        for function in config["dependencies"]:
            if function["inputs"] and function["backend_fn"]:
                sent = {"data": [], "fn_index": function["id"], "session_hash": "x"}
                assert 400 <= server.post(path, sent)[0] < 500, sent
        for number in (b"NaN", b"1e999", b"-Infinity"):
            sent = b'{"data": [' + number + b'], "fn_index": 2, "session_hash": "x"}'
            assert server.post(path, sent)[0] == 403
    example = next(one["id"] for one in config["dependencies"] if one["api_name"] == "pick")
    server.post("/gradio_api/run/predict", {"data": [], "fn_index": example, "session_hash": "x"})
    for sent in ({"data": ["photo.jpg"]}, {"data": [5]}, {"data": [[]]}):
        assert server.post("/gradio_api/call/estimate", sent)[0] == 422
    for sent in ({"image": "photo.jpg"}, {"photo": None}, {}):
        assert server.post("/gradio_api/call/v2/estimate", sent)[0] == 422, sent
    assert log.stat().st_size - before < 300, log.read_text()[before:]


def test_a_path_in_place_of_an_upload_is_told_how_to_be_one(server: Server) -> None:
    for endpoint, sent in (("/denoise", {"image": "photo.jpg"}), ("/denoise_many", {"images": ["photo.jpg"]})):
        with pytest.raises(Exception, match=r"image.*handle_file"):
            client(server).predict(**sent, api_name=endpoint)


def test_a_request_that_is_too_long_or_no_json_is_refused(server: Server) -> None:
    assert server.post("/gradio_api/call/denoise", b'{"data": "' + bytes(2_000_000) + b'"}')[0] == 413
    assert server.post("/gradio_api/call/denoise", b"{nonsense")[0] == 403


def test_a_page_may_load_nothing_from_elsewhere(server: Server) -> None:
    import urllib.request

    with urllib.request.urlopen(server.url) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "http" not in policy


def test_a_full_queue_says_so_while_health_answers_and_leaving_stops_the_work(
    tmp_path: Path,
) -> None:
    slow = tmp_path / "slow.png"
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8)
    write(slow, Image(noise, None, "png"))
    model = save_tiny(tmp_path / "tiny.safetensors")
    with serving(tmp_path, "--model", str(model), "--queue", "3", "--tile", "32") as server:
        from gradio_client import Client

        people = [Client(server.url, verbose=False) for _ in range(6)]
        jobs = [person.submit(image=upload(slow), api_name="/denoise") for person in people]
        slowest, full = 0.0, 0
        for _ in range(20):
            began = time.perf_counter()
            assert server.health()["status"] == "ok"
            slowest = max(slowest, time.perf_counter() - began)
            time.sleep(0.1)
        assert slowest < 3  # seconds, on a busy machine; who waited for the photo would wait for many
        assert server.health()["working"] == 1
        for job in jobs:
            if job.done() and job.exception() is not None:
                assert "queue is full" in str(job.exception()).lower()
                full += 1
        assert full >= 1
        for job in jobs:
            job.cancel()
        for person in people:
            person.close()
        ended = time.monotonic() + 15
        while server.health()["working"] or server.health()["queued"]:
            assert time.monotonic() < ended, "work goes on though everyone has left"
            time.sleep(0.2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_server_and_empties_its_cache(
    tmp_path: Path, tiny: Path, number: signal.Signals, code: int
) -> None:
    with serving(tmp_path, "--model", str(tiny)) as server:
        client(server).predict(image=upload(SAMPLES / "noisy" / "camera.png"), api_name="/denoise")
        assert any(server.cache.rglob("camera.png"))
        server.process.send_signal(number)
        assert server.process.wait(20) == code
        assert not any(server.cache.iterdir())


def test_a_password_is_asked_for_and_health_is_open(tmp_path: Path, tiny: Path) -> None:
    from gradio_client import Client

    accounts = tmp_path / "accounts"
    accounts.write_text("lab:secret:with colon\n")
    with serving(tmp_path, "--model", str(tiny), "--auth-file", str(accounts)) as server:
        assert server.get("/health")[0] == 200
        assert server.get("/config")[0] == 401
        assert server.post("/gradio_api/call/models", {"data": []})[0] == 401
        assert server.get(f"/gradio_api/file={next(server.cache.iterdir())}/samples/noisy/camera.png")[0] == 401
        inside = Client(server.url, auth=("lab", "secret:with colon"), verbose=False)
        assert inside.predict(api_name="/models")


def test_twenty_people_get_a_hundred_results_without_an_error(server: Server, tmp_path: Path) -> None:
    noisy = tmp_path / "small.png"
    write(noisy, Image(np.random.default_rng(2).integers(60, 200, (40, 40, 3)).astype(np.uint8), None, "png"))

    def person(number: int) -> list[float]:
        answers, times = client(server), []
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(100):  # a full queue is an answer too: come back a little later
                try:
                    answers.predict(image=upload(noisy), api_name="/denoise")
                    break
                except Exception as error:
                    assert "queue is full" in str(error).lower(), error
                    time.sleep(2)
            times.append(time.perf_counter() - began)
        return times

    person(0)  # the network is loaded
    before = resident(server.process.pid)
    with ThreadPoolExecutor(20) as people:
        times = sorted(seconds for one in people.map(person, range(20)) for seconds in one)
    after = resident(server.process.pid)
    print(json.dumps({"median": times[50], "worst": times[-1], "before_mb": before, "after_mb": after}))
    assert len(times) == 100
    assert after - before < 150
    assert server.health() == {"status": "ok", "working": 0, "queued": 0}


def resident(process: int) -> float:
    """Megabytes in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000
