"""Jupyter servers on a free port of this machine, with nothing of the user's settings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import nbformat

from tests.test_notebooks_run import SMALL
from unite_core.notebook.files import parameter_names
from unite_core.notebook.runs import project_root

NOTEBOOKS = project_root() / "notebooks"
CORES = os.environ.get("OMP_NUM_THREADS", "2")
LAB_SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are on the page
    "apputils-extension/themes": {"adaptive-theme": True},  # light or dark as the system is
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
QUICK = {
    "corpus": "shapes", "steps": 4, "start": "tiny-stage1", "stage_1": "tiny-stage1",
    "stage_2": "tiny-stage2",
}  # fmt: skip
WAIT = 240.0  # seconds for a server, a kernel or a cell on a machine with other work to do


class Server:
    """A process that serves http://127.0.0.1:port/; stop it with `stop`."""

    def __init__(self, command: list[str], folder: Path, alive: str, environment: dict):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "server.log"
        self.url = f"http://127.0.0.1:{self.port}"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, f"--port={self.port}"],
                stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=os.environ | environment,
            )  # fmt: skip
        end = time.monotonic() + WAIT
        while not self.answers(alive):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{command[0]} did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.3)

    def answers(self, path: str) -> bool:
        """Whether a GET succeeds."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10):
                return True
        except (URLError, ConnectionError, TimeoutError):
            return False

    def stop_kernels(self) -> None:
        """End all sessions, so that the next test has the machine to itself."""
        with urllib.request.urlopen(f"{self.url}/api/sessions", timeout=30) as reply:
            sessions = json.load(reply)
        for session in sessions:
            address = f"{self.url}/api/sessions/{session['id']}"
            urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=60)

    def stop(self) -> None:
        """End the process; it ends its kernels."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _environment(folder: Path) -> dict:
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
             "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR", "UNITE_RUNS")  # fmt: skip
    places = {name: str(folder / name.lower()) for name in homes}
    return places | {
        "OMP_NUM_THREADS": CORES,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }


def start_lab(folder: Path) -> Server:
    """JupyterLab on a folder's notebooks, without a token (nobody else hears it)."""
    environment = _environment(folder)
    for name, settings in LAB_SETTINGS.items():
        file = Path(
            environment["JUPYTERLAB_SETTINGS_DIR"], f"@jupyterlab/{name}.jupyterlab-settings"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    options = ("--ip=127.0.0.1", "--no-browser", "--allow-root", "--IdentityProvider.token=",
               "--ServerApp.disable_check_xsrf=True", "--LabApp.expose_app_in_browser=True",
               "--LabApp.news_url=", f"--ServerApp.root_dir={folder}")  # fmt: skip
    return Server(["jupyterlab", *options], folder, "/api/status", environment)


def start_apps(folder: Path) -> Server:
    """Voilà on the applications, as `make app` starts it."""
    environment = _environment(folder) | {"CORPUS": "shapes"}
    options = ("--no-browser", "--Voila.ip=127.0.0.1", str(NOTEBOOKS / "apps"))
    return Server(["voila", *options], folder, "/", environment)


def copy_notebook(name: str, folder: Path) -> str:
    """Copy a notebook without outputs and with quick parameters; returns its file's name."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = load_notebook_node(str(path))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    given = QUICK | SMALL[name]
    known = {key: value for key, value in given.items() if key in parameter_names(path)}
    nbformat.write(parameterize_notebook(notebook, known), folder / path.name)
    return path.name
