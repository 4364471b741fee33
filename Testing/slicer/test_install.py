"""The engine is asked for once, installed by Slicer's means, and a refusal names its cause."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
import types
import zipfile
from pathlib import Path
from unittest import mock

import slicer
from SlicerCase import SlicerCase

import DistillSeg

DistillSeg.findLibrary()

from DistillSegPanel import Install  # noqa: E402
from DistillSegPanel.PipOutput import causeOf  # noqa: E402

ABSENT = "distillseg_absent_engine"
PYTHON = shutil.which("PythonSlicer") or sys.executable  # the latter outside of Slicer

# As pip printed it, cut to what tells.
NO_HOST = """WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None))
after connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection
at 0x7f>: Failed to establish a new connection: [Errno -2] Name or service not known')': /simple/
ERROR: Could not find a version that satisfies the requirement onnxruntime>=1.19
ERROR: No matching distribution found for onnxruntime>=1.19"""
NO_PROXY = """WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None))
after connection broken by 'ProxyError('Cannot connect to proxy.', NewConnectionError('<pip._vendor.
urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish a new connection:
[Errno 111] Connection refused'))': /simple/onnxruntime/
ERROR: No matching distribution found for onnxruntime>=1.19"""
CERTIFICATE = """WARNING: Retrying after connection broken by 'SSLError(SSLCertVerificationError(1,
'[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in certificate
chain (_ssl.c:1006)'))': /simple/onnxruntime/"""
FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
FORBIDDEN = """ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied:
'/opt/Slicer/lib/Python/lib/python3.12/site-packages/onnxruntime'"""
NO_WHEEL = """ERROR: Could not find a version that satisfies the requirement onnxruntime>=1.19 (from
versions: none)
ERROR: No matching distribution found for onnxruntime>=1.19"""
OUTPUTS = {
    "network": NO_HOST,
    "proxy": NO_PROXY,
    "certificate": CERTIFICATE,
    "disk": FULL,
    "permission": FORBIDDEN,
    "wheel": NO_WHEEL,
    "other": "ERROR: Exception: it rains",
}


def wheel(folder, name, version="1.2.0", code=""):
    """A wheel that pip takes."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(Path(folder, f"{name}-{version}-py3-none-any.whl"), "w") as archive:
        for each, text in files.items():
            archive.writestr(each, text)


class InstallTest(SlicerCase):
    def setUp(self):
        super().setUp()
        self.asked, self.installed = [], []
        self.answer = True
        self.place = tempfile.TemporaryDirectory(prefix="Käse @ ")
        self.addCleanup(self.place.cleanup)
        self.target = Path(self.place.name, "site")
        self.target.mkdir()
        sys.path.insert(0, str(self.target))
        self.addCleanup(sys.path.remove, str(self.target))

    @contextlib.contextmanager
    def user(self, pip, *, engine=ABSENT, packaging=None):
        """A user who answers, a `pip` in place of Slicer's, and an engine that is not there."""

        def ask(question, *_arguments, **_keywords):
            self.asked.append(question)
            return self.answer

        with (
            mock.patch.object(Install, "ENGINE", engine),
            mock.patch.object(Install, "REQUIREMENT", f"{engine}>=1.0"),
            mock.patch.object(Install, "OLDEST", (1, 0)),
            mock.patch.object(Install, "_isTesting", lambda: False),
            mock.patch.object(Install, "_packaging", lambda: packaging),
            mock.patch.object(slicer.util, "confirmOkCancelDisplay", ask),
            mock.patch.object(slicer.util, "pip_install", pip),
        ):
            yield

    def realPip(self, arguments):
        """What Slicer does, into a folder that is thrown away."""
        self.installed.append(arguments)
        done = subprocess.run(
            [PYTHON, "-m", "pip", "install", "--upgrade", "--target", str(self.target), *arguments],
            capture_output=True,
            text=True,
        )
        print(done.stdout, done.stderr)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, "pip")

    def failing(self, text):
        def pip(arguments):
            self.installed.append(arguments)
            print(text)
            raise subprocess.CalledProcessError(1, "pip")

        return pip

    def test_an_engine_that_is_there_is_used_without_a_word(self):
        state = Install.state()
        if not state.version:
            self.skipTest("onnxruntime is not installed here")
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", self.fail):
            self.assertEqual(Install.ensure(), state)
        self.assertTrue(state.isUsable)

    def test_the_panel_loads_without_the_engine(self):
        code = (
            "import sys; sys.modules['onnxruntime'] = None\n"
            "from DistillSegLib import inference, catalogue, comparison"
        )
        folder = Path(sys.modules["DistillSegLib"].__file__).parents[1]
        subprocess.run([PYTHON, "-c", code], check=True, cwd=folder)

    def test_nothing_is_installed_while_slicer_is_tested(self):
        if not slicer.app.testingEnabled():
            self.skipTest("Slicer was started without --testing")
        with (
            mock.patch.object(Install, "ENGINE", ABSENT),
            mock.patch.object(Install, "REQUIREMENT", f"{ABSENT}>=1.0"),
            self.assertRaises(Install.InstallError) as caught,
        ):
            Install.ensure()
        self.assertEqual(caught.exception.cause, "testing")

    def test_it_is_never_installed_from_a_thread(self):
        problems = []

        def work():
            try:
                Install.ensure()
            except RuntimeError as problem:
                problems.append(str(problem))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.assertIn("main thread only", problems[0])

    def test_it_is_asked_once_and_then_there(self):
        folder = Path(self.place.name, "räder")
        folder.mkdir()
        wheel(folder, ABSENT)
        with self.user(self.realPip):
            self.assertEqual(Install.state(), Install.State())
            self.assertEqual(Install.ensure(wheelFolder=folder).version, "1.2.0")
            self.assertEqual(Install.ensure(wheelFolder=folder).version, "1.2.0")
        self.assertEqual(len(self.asked), 1)
        self.assertEqual(len(self.installed), 1)
        self.assertIn("--no-index", self.installed[0])  # nothing is looked for on the network

    def test_a_folder_without_the_wheel_says_so(self):
        with self.user(self.realPip), self.assertRaises(Install.InstallError) as caught:
            Install.ensure(wheelFolder=self.target)
        self.assertEqual(caught.exception.cause, "wheel")
        self.assertIn(str(self.target), str(caught.exception))

    def test_an_engine_that_does_not_load_is_repaired(self):
        folder = Path(self.place.name, "wheels")
        folder.mkdir()
        engine = "distillseg_broken_engine"
        wheel(self.target, engine, "1.1.0")
        with zipfile.ZipFile(self.target / f"{engine}-1.1.0-py3-none-any.whl") as archive:
            archive.extractall(self.target)
        (self.target / engine / "__init__.py").write_text("raise ImportError('DLL load failed')")
        wheel(folder, engine)
        with self.user(self.realPip, engine=engine):
            self.assertIn("DLL load failed", Install.state().problem)
            self.assertTrue(Install.ensure(wheelFolder=folder).isUsable)
        self.assertIn("--force-reinstall", self.installed[0])
        self.assertIn("--no-deps", self.installed[0])

    def test_an_old_engine_is_named(self):
        with mock.patch.object(Install, "OLDEST", (999, 0)):
            state = Install.state()
        if not state.version:
            self.skipTest("onnxruntime is not installed here")
        self.assertFalse(state.isUsable)
        self.assertIn("older than 999.0", state.problem)

    def test_a_script_without_the_main_window_is_not_held_up_by_a_question(self):
        with (
            self.user(self.realPip),
            mock.patch.object(Install, "_isUnattended", lambda: True),
            self.assertRaises(Install.InstallError) as caught,
        ):
            Install.ensure()
        self.assertEqual(
            (caught.exception.cause, self.asked, self.installed), ("unattended", [], [])
        )
        self.assertIn(caught.exception.command, str(caught.exception))
        self.assertEqual(Install._isUnattended(), slicer.app.layoutManager() is None)

    def test_a_no_is_a_no(self):
        self.answer = False
        with self.user(self.realPip), self.assertRaises(Install.InstallError) as caught:
            Install.ensure()
        self.assertEqual((caught.exception.cause, self.installed), ("declined", []))

    def test_slicer_s_own_package_management_is_used_where_it_is(self):
        calls = []

        def decline(requirements, requester=None):
            calls.append((requirements, requester))
            raise RuntimeError("User declined package installation")

        packaging = types.SimpleNamespace(pip_ensure=decline)
        with (
            self.user(self.realPip, packaging=packaging),
            self.assertRaises(Install.InstallError) as caught,
        ):
            Install.ensure()
        self.assertEqual(calls, [(f"{ABSENT}>=1.0", "DistillSeg")])
        self.assertEqual((caught.exception.cause, self.asked), ("declined", []))

    def test_every_failure_names_its_cause_and_the_administrator_s_command(self):
        sentences = set()
        for cause, text in OUTPUTS.items():
            with (
                self.subTest(cause),
                self.user(self.failing(text)),
                self.assertRaises(Install.InstallError) as caught,
            ):
                Install.ensure()
            self.assertEqual(caught.exception.cause, cause)
            self.assertIn("PythonSlicer", caught.exception.command)
            self.assertIn("-m pip install --only-binary=:all: ", caught.exception.command)
            sentences.add(str(caught.exception))
        self.assertEqual(len(sentences), len(OUTPUTS))

    def test_pip_s_own_words_for_an_empty_folder_are_understood(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [
                    PYTHON,
                    "-m",
                    "pip",
                    "--isolated",
                    "install",
                    *Install._arguments(folder)[:-1],
                    ABSENT,
                ],
                capture_output=True,
                text=True,
            )
        self.assertEqual(causeOf(done.stdout + done.stderr), "wheel")

    def test_the_offline_command_names_the_folder(self):
        command = Install.administratorCommand("C:/my wheels")
        self.assertIn('--no-index --find-links "C:/my wheels" "onnxruntime>=1.19"', command)
