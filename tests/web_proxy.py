"""nginx in front of a server of the web app, under /denoise/, with the recipe of the README."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from web_server import Server

README = Path(__file__).parent.parent / "README.md"
CONFIG = """
{user}daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    {location}
  }}
}}
"""


def recipe(server: Server) -> str:
    """The `location` block of the README, for this server's port."""
    found = re.search(r"location /denoise/ \{.*?\n    \}", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found, "the README has no nginx recipe"
    return found[0].replace("http://127.0.0.1:7860/", f"{server.url}/")


@contextmanager
def proxied(folder: Path, server: Server) -> Iterator[str]:
    """The address of a running nginx, without the path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""  # who may write into the folder of the test
    config.write_text(CONFIG.format(user=user, folder=folder, port=port, location=recipe(server)))
    command = [str(shutil.which("nginx")), "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    process = subprocess.Popen(command)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
