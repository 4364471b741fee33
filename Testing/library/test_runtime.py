"""Engines: the same numbers from each, a pass that can be ended, one sentence on failure."""

from __future__ import annotations

import logging
import sys
import threading

import numpy as np
import pytest

from DistillSegLib import runtime
from DistillSegLib.errors import Cancelled, DistillSegError, PackageError
from DistillSegLib.runtime import Session, available_engines
from Testing.models import onnx_bytes, threshold_logits, threshold_model


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine(request) -> str:
    pytest.importorskip(request.param)
    return request.param


def windows(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 10, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1, 4, 6, 8), (3, 1, 5, 7, 2), (1, 1, 1, 1, 1)])
def test_an_engine_computes_the_models_formula_for_any_size(engine, shape):
    session = Session(threshold_model(), engine=engine)
    image = windows(shape)
    logits = session(image)
    assert session.engine == engine
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, threshold_logits(image), atol=1e-5)


def test_a_strided_model_gives_fewer_logits(engine):
    logits = Session(threshold_model(stride=2), engine=engine)(windows((1, 1, 4, 6, 8)))
    assert logits.shape == (1, 3, 2, 3, 4)


def test_results_of_earlier_calls_stay_as_they_were(engine):
    session = Session(threshold_model(), engine=engine)
    first = session(windows((1, 1, 4, 4, 4)))
    kept = first.copy()
    session(windows((1, 1, 4, 4, 4), seed=1))
    np.testing.assert_array_equal(first, kept)


def test_openvino_computes_in_full_precision():
    pytest.importorskip("openvino")
    image = windows((1, 1, 8, 8, 8)) + 1e-3
    logits = Session(threshold_model(blur=3), engine="openvino")(image)
    # In bfloat16, which OpenVINO prefers where it can, this would be off by about 0.03.
    assert np.abs(logits - threshold_logits(image)).max() < 1e-4


def test_strided_views_and_other_types_are_accepted(engine):
    image = windows((1, 1, 8, 8, 8)).astype(np.float64)[..., ::2]
    logits = Session(threshold_model(), engine=engine)(image)
    np.testing.assert_allclose(logits, threshold_logits(image), atol=1e-5)


def test_cancel_ends_a_running_pass_and_the_next_is_right(engine):
    session = Session(long_model(), engine=engine, threads=1)
    small = windows((1, 1, 6, 5, 7))
    expected = session(small)
    session.cancel()  # while nothing runs: no harm
    np.testing.assert_array_equal(session(small), expected)
    done = threading.Event()

    def keep_cancelling():
        while not done.wait(0.02):
            session.cancel()

    thread = threading.Thread(target=keep_cancelling)
    thread.start()
    try:
        with pytest.raises(Cancelled, match="cancelled"):
            session(windows((1, 1, 96, 96, 96)))
    finally:
        done.set()
        thread.join()
    np.testing.assert_array_equal(session(small), expected)


def long_model() -> bytes:
    """Enough convolutions that a pass can be ended between two of them."""
    weights = {"first": np.full((16, 1, 3, 3, 3), 0.01, np.float32)}
    weights["more"] = np.full((16, 16, 3, 3, 3), 0.002, np.float32)
    weights["last"] = np.ones((3, 16, 1, 1, 1), np.float32)
    from onnx import helper

    names = ["image", *(f"x{i}" for i in range(24)), "logits"]
    kernels = ["first", *["more"] * 23, "last"]
    nodes = [
        helper.make_node("Conv", [a, kernel], [b], pads=[0 if kernel == "last" else 1] * 6)
        for a, kernel, b in zip(names, kernels, names[1:], strict=False)
    ]
    return onnx_bytes(nodes, weights)


@pytest.mark.parametrize("model", [b"", b"not a model", threshold_model()[:-60]])
def test_a_broken_model_is_refused_in_one_sentence(engine, model):
    with pytest.raises(PackageError, match="cannot load the model"):
        Session(model, engine=engine)


def test_a_model_of_another_kind_is_refused(engine):
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("Relu", ["a"], ["b"])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in "ab"]
    graph = helper.make_graph([node], "flat", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    with pytest.raises(PackageError, match="must take one float image"):
        Session(model.SerializeToString(), engine=engine)


def test_windows_that_a_model_cannot_take_are_refused_in_one_sentence():
    with pytest.raises(DistillSegError, match="failed while running the model"):
        Session(threshold_model(), engine="onnxruntime")(windows((1, 2, 4, 4, 4)))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_engine_says_how_to_install_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DistillSegError, match=f"pip install {name}"):
        Session(threshold_model(), engine=name)


def test_an_unknown_engine_is_named():
    with pytest.raises(DistillSegError, match="No engine 'tensorrt'"):
        Session(threshold_model(), engine="tensorrt")


def test_auto_goes_on_with_onnxruntime_where_openvino_fails_to_load(monkeypatch, caplog):
    def broken(model, threads):
        raise DistillSegError("no such processor")

    monkeypatch.setattr(runtime, "_preferred", lambda: "openvino")
    monkeypatch.setitem(runtime._LOADERS, "openvino", broken)
    with caplog.at_level(logging.WARNING):
        session = Session(threshold_model())
    assert session.engine == "onnxruntime"
    assert [record.message for record in caplog.records] == [
        "openvino is not used, going on with onnxruntime: no such processor"
    ]
    assert session(windows((1, 1, 2, 2, 2))).shape == (1, 3, 2, 2, 2)


def test_auto_goes_on_with_onnxruntime_where_openvino_fails_to_run(monkeypatch, caplog):
    def loaded(model, threads):
        def run(image):
            raise DistillSegError("unsupported")

        return run

    monkeypatch.setattr(runtime, "_preferred", lambda: "openvino")
    monkeypatch.setitem(runtime._LOADERS, "openvino", loaded)
    session = Session(threshold_model())
    image = windows((1, 1, 2, 2, 2))
    np.testing.assert_allclose(session(image), threshold_logits(image), atol=1e-5)
    assert session.engine == "onnxruntime"
    assert len(caplog.records) == 1


def test_an_engine_that_was_asked_for_by_name_is_not_replaced(monkeypatch):
    def broken(model, threads):
        raise DistillSegError("no such processor")

    monkeypatch.setitem(runtime._LOADERS, "openvino", broken)
    with pytest.raises(DistillSegError, match="no such processor"):
        Session(threshold_model(), engine="openvino")


def test_engines_that_are_installed_are_listed():
    assert "onnxruntime" in available_engines()
