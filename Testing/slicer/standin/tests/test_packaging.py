"""`slicer.packaging` as in 5.12, taken away as in 5.10, and installations that fail."""

from __future__ import annotations

import importlib
import subprocess
import threading
from unittest import mock

import pytest
import slicer
from standin import packaging
from standin.violations import expected

MISSING = "surely-not-installed>=99"


@pytest.fixture(autouse=True)
def no_requests():
    packaging.requests.clear()
    yield
    packaging.requests.clear()


def test_what_is_installed_is_recognised():
    assert slicer.packaging.pip_check("numpy>=1.0")
    assert not slicer.packaging.pip_check("numpy>=99")
    assert not slicer.packaging.pip_check(MISSING)


def test_nothing_is_installed_silently_in_testing_mode():
    slicer.packaging.pip_ensure(MISSING)
    assert packaging.requests == []


def test_a_declined_installation_is_an_error():
    with (
        mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=False),
        pytest.raises(RuntimeError, match="declined"),
    ):
        slicer.packaging.pip_ensure(MISSING, skip_in_testing=False)
    assert packaging.requests == []


def test_an_accepted_installation_is_recorded():
    with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=True):
        slicer.packaging.pip_ensure(MISSING, skip_in_testing=False)
    slicer.util.pip_install("--no-index --find-links /folder onnxruntime")
    assert packaging.requests == [MISSING, "--no-index --find-links /folder onnxruntime"]


def test_pip_may_fail_with_its_own_words():
    text = "ERROR: Could not find a version that satisfies the requirement onnxruntime"
    with packaging.failing(text), pytest.raises(subprocess.CalledProcessError) as error:
        slicer.util.pip_install("onnxruntime")
    assert error.value.output == text


def test_older_slicers_have_no_packaging():
    with packaging.absent():
        assert not hasattr(slicer, "packaging")
        with pytest.raises(ImportError):
            importlib.import_module("slicer.packaging")
        assert callable(slicer.util.pip_install)
    assert slicer.packaging.pip_check("numpy")


def test_pip_in_a_thread_is_recorded():
    thread = threading.Thread(target=lambda: slicer.util.pip_install("x"))
    with expected("pip-in-thread"):
        thread.start()
        thread.join()
