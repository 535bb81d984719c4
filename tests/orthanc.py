"""A real PACS for the end-to-end tests: Debian's Orthanc with its DICOMweb plugin, on free ports, in a folder of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
import requests
from pydicom import dcmwrite
from pydicom.dataset import Dataset

PROGRAM = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
PLUGIN = next(iter(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so*")), None)

needs_orthanc = pytest.mark.skipif(
    PROGRAM is None or PLUGIN is None,
    reason="tests on a PACS need Orthanc: apt-get install orthanc orthanc-dicomweb",
)


class Orthanc:
    """A running Orthanc; `address` is its DICOMweb root."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.port = folder, _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.address = f"{self.url}/dicom-web"
        settings = {
            "Name": "test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
            "HttpPort": self.port, "DicomPort": _free_port(), "RemoteAccessAllowed": True, "AuthenticationEnabled": False,
            "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }  # fmt: skip
        self._settings = folder / "orthanc.json"
        self._settings.write_text(json.dumps(settings))
        self._process: subprocess.Popen | None = None

    def start(self) -> Orthanc:
        """Start and wait until it answers."""
        with (self._folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, str(self._settings)], stdout=log, stderr=log)
        for _ in range(240):
            try:
                if requests.get(f"{self.url}/system", timeout=5).ok:
                    return self
            except requests.RequestException:
                time.sleep(0.25)
        raise RuntimeError(f"Orthanc did not answer:\n{(self._folder / 'orthanc.log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End it; what it stored stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None

    def store(self, instances: Sequence[Dataset]) -> None:
        """Send instances as a scanner would."""
        for ds in instances:
            out = BytesIO()
            dcmwrite(out, ds, write_like_original=False)
            answer = requests.post(f"{self.url}/instances", data=out.getvalue(), timeout=60)
            answer.raise_for_status()

    def segs(self) -> list[dict]:
        """Main tags of the SEG series that it holds."""
        found = requests.post(
            f"{self.url}/tools/find",
            json={"Level": "Series", "Expand": True, "Query": {"Modality": "SEG"}},
            timeout=60,
        ).json()
        return [series["MainDicomTags"] for series in found]


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
