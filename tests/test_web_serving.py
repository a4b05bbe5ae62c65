"""The server as a process: its port, signals, and a proxy before it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from web_proxy import proxied
from web_server import Server, serving, wait_until

from denoise_se.app.web import check_port
from denoise_se.errors import UsageError
from denoise_se.image import Image
from denoise_se.image_io import write

pytest.importorskip("gradio", reason="the web extra is not installed")

SAMPLES = Path(__file__).parent.parent / "data" / "samples"


def large(folder: Path) -> Path:
    """A photo whose denoising takes some seconds."""
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8)
    write(folder / "large.png", Image(noise, None, "png"))
    return folder / "large.png"


def test_a_port_in_use_is_refused_before_anything_is_loaded() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: Address already in use; choose another"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_a_photo_ends_the_server_within_seconds(
    tmp_path: Path, tiny: Path, number: signal.Signals, code: int
) -> None:
    from gradio_client import Client, handle_file

    with serving(tmp_path, "--model", str(tiny), "--tile", "32") as server:
        person = Client(server.url, verbose=False)
        person.submit(image=handle_file(str(large(tmp_path))), api_name="/denoise")
        wait_until(lambda: server.health()["working"] == 1, 60, "the work does not begin")
        server.process.send_signal(number)
        assert server.process.wait(30) == code
        assert not any(server.cache.iterdir())
        assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx: apt-get install nginx-light")
def test_it_works_behind_nginx_under_a_path(tmp_path: Path, tiny: Path) -> None:
    from gradio_client import Client, handle_file

    options = ("--model", str(tiny), "--root-path", "/denoise", "--allow-host", "lab.example")
    with serving(tmp_path, *options) as server, proxied(tmp_path, server) as url:
        outside = Server(url, server.process, server.cache)
        status, page = outside.get("/denoise/", {"Host": "lab.example"})
        assert status == 200 and b"/denoise" in page
        assert outside.get("/denoise/health")[0] == 200
        assert outside.get("/denoise/config", {"Host": "evil.example"})[0] == 421
        assert outside.get("/denoise/gradio_api/file=/etc/passwd")[0] == 403
        person = Client(f"{url}/denoise/", verbose=False)
        noisy = SAMPLES / "noisy" / "camera.png"
        result, report = person.predict(image=handle_file(str(noisy)), api_name="/denoise")
        command = ["denoise", str(noisy), "-o", str(tmp_path / "out.png"), "--model", str(tiny), "--quiet"]
        subprocess.run([sys.executable, "-m", "denoise_se.app", *command], check=True)
        assert report["status"] == "done"
        assert Path(result).read_bytes() == (tmp_path / "out.png").read_bytes()
