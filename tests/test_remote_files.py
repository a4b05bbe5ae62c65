"""Images in object stores: read, written, resumed and refused as local ones are; an S3 server runs beside the tests."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import PIL.Image
import pytest
import tifffile

from denoise_se import remote_files
from denoise_se.app import cli
from denoise_se.errors import UsageError
from denoise_se.image_io import open_pages, probe, read
from denoise_se.remote_files import Address, parse_location
from denoise_se.remote_manifest import FOLDER, MOST_PARTS, RemoteManifest

KEYS = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path) -> Run:
    """`denoise-se denoise ARGUMENTS` with a small model, in an empty folder and in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        command = ["denoise-se", "denoise", *map(str, arguments), "--model", str(tiny), "--sigma", "25", "--json"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as caught:
            cli.main()
            raise SystemExit(0)
        printed = capsys.readouterr()
        return Result(int(caught.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    fsspec.filesystem("memory").store.clear()
    yield
    fsspec.filesystem("memory").store.clear()


def png(seed: int) -> bytes:
    path = Path(f"{seed}.tmp.png")
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 28, 3), np.uint8)).save(path)
    content = path.read_bytes()
    path.unlink()
    return content


def fill(folder: str, count: int = 3) -> None:
    """The same images in a folder of a store and in the local folder "in"."""
    Path("in/sub").mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        name = f"{seed}.png" if seed else "sub/0.png"
        Path("in", name).write_bytes(png(seed))
        (parse_location(f"{folder}/{name}")).write_bytes(png(seed))


def digests(folder: Path | Address) -> dict[str, str]:
    """Of the images below a folder."""
    if isinstance(folder, Path):
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}
    else:
        files = {
            (base / name).relative_to(folder).as_posix(): (base / name).read_bytes()
            for base, names in folder.walk(True)
            for name in names
        }
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def statuses(result: Result) -> list[str]:
    return [json.loads(line)["status"] for line in result.out.splitlines()]


# --- addresses -------------------------------------------------------------------------------------------------------


def test_an_address_is_taken_apart_like_a_path() -> None:
    address = parse_location("s3://bucket/a folder/picture.one.PNG")
    assert isinstance(address, Address)
    assert (address.name, address.stem, address.suffix) == ("picture.one.PNG", "picture.one", ".PNG")
    assert str(address.parent) == "s3://bucket/a folder" and str(address.parent / Path("b/c.png")) == (
        "s3://bucket/a folder/b/c.png"
    )
    assert address.relative_to(Address("s3://bucket")) == Path("a folder/picture.one.PNG")


def test_text_without_a_scheme_and_file_addresses_are_paths() -> None:
    assert parse_location("folder/a.png") == Path("folder/a.png")
    assert parse_location("file:///folder/a%20b.png") == Path("/folder/a b.png")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ftp://host/a.png", "ftp:// is not supported; one of file, s3"),
        ("s3://", "names no bucket"),
        ("s3://key:secret@bucket/a.png", "credentials in an address are refused"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(run: Run, text: str, reason: str) -> None:
    result = run(text, "-o", "out")
    assert result.code == 2 and reason in result.err and "secret@" not in result.err


# --- the memory file system ------------------------------------------------------------------------------------------


def test_a_folder_of_a_store_gives_the_bytes_of_a_local_run(run: Run) -> None:
    fill("memory://in")
    assert run("in", "-o", "out", "--recursive").code == 0
    result = run("memory://in", "-o", "memory://out", "--recursive")
    assert result.code == 0, result.err
    assert digests(Address("memory://out")) == digests(Path("out")) and len(digests(Path("out"))) == 3
    assert [json.loads(line)["output"] for line in result.out.splitlines()] == [
        "memory://out/1.png",
        "memory://out/2.png",
        "memory://out/sub/0.png",
    ]


def test_references_and_reports_may_be_in_a_store_too(run: Run) -> None:
    fill("memory://in")
    result = run(
        "in", "-o", "memory://out", "--recursive", "--reference", "memory://in", "--report", "memory://report/all.json"
    )
    assert result.code == 0, result.err
    rows = json.loads(Address("memory://report/all.json").read_bytes())["rows"]
    assert [row["psnr_noisy"] for row in rows] == ["inf"] * 3 and all(row["psnr"] < 60 for row in rows)


def test_existing_objects_are_refused_and_with_resume_done_once(run: Run) -> None:
    fill("memory://in")
    assert run("memory://in", "-o", "memory://out").code == 0
    again = run("memory://in", "-o", "memory://out")
    assert again.code == 2 and "memory://out/1.png" in again.err and "--resume" in again.err
    Address("memory://in/3.png").write_bytes(png(3))
    time.sleep(0.01)
    Address("memory://in/1.png").write_bytes(png(7))
    resumed = run("memory://in", "-o", "memory://out", "--resume")
    assert statuses(resumed) == ["done", "skipped", "done"]


def test_an_output_of_other_settings_or_one_that_was_replaced_is_done_again(run: Run) -> None:
    fill("memory://in", 2)
    assert run("memory://in", "-o", "memory://out").code == 0
    assert statuses(run("memory://in", "-o", "memory://out", "--resume")) == ["skipped"]
    assert statuses(run("memory://in", "-o", "memory://out", "--resume", "--strength", "0.5")) == ["done"]
    time.sleep(0.01)
    Address("memory://out/1.png").write_bytes(png(5))
    assert statuses(run("memory://in", "-o", "memory://out", "--resume", "--strength", "0.5")) == ["done"]


def test_the_parts_of_a_manifest_are_put_together_when_they_are_many() -> None:
    home = Address("memory://out")
    for number in range(MOST_PARTS + 1):
        manifest = RemoteManifest(home, {})
        manifest.append({"output": f"{number % 40}.png", "made": number})
        manifest.close()
    entries = RemoteManifest(home, {}).entries
    assert len((home / FOLDER).names()) == 1
    assert RemoteManifest(home, {}).entries == entries and len(entries) == 40 and entries["5.png"]["made"] == 45


def test_inputs_and_outputs_that_are_the_same_object_are_refused(run: Run) -> None:
    fill("memory://in")
    before = digests(Address("memory://in"))
    result = run("memory://in", "-o", "memory://in", "--overwrite")
    assert result.code == 2 and "would replace an input" in result.err
    assert digests(Address("memory://in")) == before


def test_a_large_tiff_is_read_by_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (3000, 2200, 3), np.uint16)
    tifffile.imwrite(tmp_path / "large.tif", pixels, photometric="rgb", rowsperstrip=50)
    address = Address("memory://in/large.tif")
    address.write_bytes((tmp_path / "large.tif").read_bytes())
    asked: list[int] = []
    system = fsspec.filesystem("memory")
    fetch = system.cat_file

    def counted(path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        asked.append((end or 0) - (start or 0))
        return fetch(path, start=start, end=end, **options)

    monkeypatch.setattr(system, "cat_file", counted)
    monkeypatch.setattr(remote_files, "_system", lambda protocol: system)
    assert probe(address).height == 3000 and sum(asked) < 1 << 20
    asked.clear()
    with open_pages(address) as pages:
        assert np.array_equal(pages[0].rows(1000, 1010), pixels[1000:1010])
    assert sum(asked) < pixels.nbytes / 2, "a few rows took the whole file"
    assert np.array_equal(read(address).pixels, pixels)


# --- what goes wrong -------------------------------------------------------------------------------------------------


class Faulty:
    """A file system whose calls fail, as often as told, with an error of its library."""

    def __init__(self, system: Any, name: str, error: Exception, times: int) -> None:
        self.system, self.name, self.error, self.times = system, name, error, times

    def __getattr__(self, name: str) -> Any:
        if name != self.name or self.times == 0:
            return getattr(self.system, name)

        def fail(*arguments: Any, **options: Any) -> None:
            self.times -= 1
            raise self.error

        return fail


class EndpointError(Exception):
    """As a store's library raises it, with what it was given in its text."""


@pytest.mark.parametrize("call", ["cat_file", "put_file"])
def test_a_fault_that_passes_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    fill("memory://in", 2)
    faulty = Faulty(fsspec.filesystem("memory"), call, EndpointError("reset"), 2)
    monkeypatch.setattr(remote_files, "_system", lambda protocol: faulty)
    monkeypatch.setattr(remote_files, "PAUSE", 0.001)
    assert run("memory://in", "-o", "memory://out").code == 0 and faulty.times == 0


@pytest.mark.parametrize(
    ("call", "error", "reason"),
    [
        (
            "cat_file",
            EndpointError("key a-secret-of-the-test"),
            "as it should (EndpointError, 3 attempts)",
        ),
        ("cat_file", PermissionError("a-secret-of-the-test"), "access denied; check the credentials"),
        ("put_file", PermissionError("a-secret-of-the-test"), "access denied; check the credentials"),
        ("put_file", EndpointError("a-secret-of-the-test"), "try again later"),
    ],
)
def test_a_fault_that_lasts_fails_the_file_by_name_and_tells_no_secret(
    run: Run, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception, reason: str
) -> None:
    fill("memory://in", 2)
    faulty = Faulty(fsspec.filesystem("memory"), call, error, 100)
    monkeypatch.setattr(remote_files, "_system", lambda protocol: faulty)
    monkeypatch.setattr(remote_files, "PAUSE", 0.001)
    result = run("memory://in/1.png", "-o", "memory://out")
    assert result.code == 1 and "Traceback" not in result.err
    assert "memory://in/1.png: failed:" in result.err and reason in result.err
    assert "a-secret" not in result.err + result.out
    assert not Address("memory://out/1.png").exists()


def test_a_failed_upload_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="stop"), Address("memory://out/a.png").replacing() as stream:
        stream.write(b"half of it")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == [] and not Address("memory://out/a.png").exists()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> None:
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(remote_files, "_system", missing)
    with pytest.raises(UsageError, match="pip install gcsfs"):
        remote_files.check_library(Address("gs://bucket/a"))


# --- an S3 server ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A server of S3's interface on this machine, with a bucket, and the environment to reach it."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    with pytest.MonkeyPatch.context() as patch:
        try:
            assert server.stderr is not None
            address = next(line.rpartition("Running on ")[2].strip() for line in server.stderr if "Running on" in line)
            for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
                patch.setenv(name, value)
            remote_files._system.cache_clear()
            import s3fs

            s3fs.S3FileSystem.clear_instance_cache()
            system = s3fs.S3FileSystem()
            system.mkdir("bucket")
            yield system
        finally:
            server.kill()
            server.wait()
            remote_files._system.cache_clear()


def test_a_bucket_gives_the_bytes_of_a_local_run_and_resumes(run: Run, s3: Any) -> None:
    fill("s3://bucket/in")
    assert run("in", "-o", "out", "--recursive").code == 0
    result = run("s3://bucket/in", "-o", "s3://bucket/out", "--recursive")
    assert result.code == 0, result.err
    assert digests(Address("s3://bucket/out")) == digests(Path("out"))
    again = run("s3://bucket/in", "-o", "s3://bucket/out", "--recursive", "--resume")
    assert statuses(again) == ["skipped"] * 3, again.err
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in result.err + result.out + again.err + again.out


def test_a_wrong_bucket_is_refused_by_name(run: Run, s3: Any) -> None:
    result = run("s3://no-such-bucket/in", "-o", "out")
    assert result.code == 2 and "s3://no-such-bucket/in" in result.err and "Traceback" not in result.err
    Path("a.png").write_bytes(png(0))
    result = run("a.png", "-o", "s3://no-such-bucket/out")
    assert result.code == 2 and "there is no bucket s3://no-such-bucket" in result.err and "Traceback" not in result.err


def test_an_upload_in_parts_appears_only_when_it_is_complete(s3: Any) -> None:
    content = np.random.default_rng(0).bytes(60 << 20)  # above the size from which s3fs uploads in parts
    address = Address("s3://bucket/large.bin")
    with address.replacing() as stream:
        stream.write(content)
        assert not address.exists()
    assert hashlib.sha256(address.read_bytes()).digest() == hashlib.sha256(content).digest()


def test_a_server_that_is_not_there_fails_with_the_mend(run: Run, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(remote_files, "ATTEMPTS", 1)
    remote_files._system.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        result = run("s3://bucket/in", "-o", "out")
    finally:
        remote_files._system.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()
    assert result.code == 2 and "s3://bucket/in" in result.err and "does not answer" in result.err
