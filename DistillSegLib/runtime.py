"""Inference engines: the only file that knows onnxruntime and openvino.

ONNX Runtime is the required engine, OpenVINO an optional and faster one on x86 processors; both run
the same fp32 ONNX file on the CPU, in fp32. Neither is imported before a session is made, so that
everything else works where they are not installed yet.
"""

from __future__ import annotations

import io
import logging
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.errors import Cancelled, DistillSegError, PackageError
from DistillSegLib.machine import physical_cores

log = logging.getLogger(__name__)

Engine = Literal["auto", "onnxruntime", "openvino"]
ENGINES = ("onnxruntime", "openvino")


def available_engines() -> tuple[str, ...]:
    """The engines installed here."""
    return tuple(name for name in ENGINES if find_spec(name))


class Session:
    """One model, loaded once and called with windows.

        session = Session(model_bytes)
        logits = session(windows)  # (N, C, d, h, w) float32 -> (N, K, d/s, h/s, w/s) float32

    Args:
        model: ONNX bytes (paths with any letters in them then never reach an engine), or a file.
        threads: 0 is all physical cores that this process may use.
        engine: "auto" is OpenVINO where it is installed on an x86 processor and takes the model,
            otherwise ONNX Runtime.

    Attributes:
        engine: the one in use, "onnxruntime" or "openvino".
    """

    def __init__(self, model: bytes | Path, *, threads: int = 0, engine: Engine = "auto"):
        if engine not in ("auto", *ENGINES):
            raise DistillSegError(f"No engine '{engine}'; choose from auto, {', '.join(ENGINES)}.")
        if threads < 0:
            raise DistillSegError(f"The number of threads is {threads}; use 0 for all, or more.")
        self._model = model if isinstance(model, bytes) else Path(model).read_bytes()
        self._threads = threads or physical_cores()
        self._may_fall_back = engine == "auto"
        self.engine = engine if engine != "auto" else _preferred()
        try:
            self._run = _LOADERS[self.engine](self._model, self._threads)
        except Exception as problem:
            if not self._fall_back(problem):
                raise

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model.

        Raises:
            Cancelled: `cancel` was called meanwhile.
            MemoryError: the engine could not get the memory that it needs.
            DistillSegError: the engine failed otherwise.
        """
        try:
            return self._run(np.ascontiguousarray(windows, np.float32))
        except (Cancelled, MemoryError):
            raise
        except Exception as problem:
            if not self._fall_back(problem):
                raise
            return self(windows)

    def cancel(self) -> None:
        """End a pass that is running in another thread; it raises Cancelled."""
        self._run.cancel()

    def _fall_back(self, problem: Exception) -> bool:
        """Go on with ONNX Runtime if "auto" had chosen another engine; one line of log."""
        if not self._may_fall_back or self.engine == "onnxruntime":
            return False
        log.warning("%s is not used, going on with onnxruntime: %s", self.engine, problem)
        self.engine = "onnxruntime"
        self._run = _OnnxRuntime(self._model, self._threads)
        return True


class _OnnxRuntime:
    def __init__(self, model: bytes, threads: int):
        onnxruntime = _import("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_mem_pattern = False  # plans memory for one shape; ours vary: 40 % less
        _share_arena(onnxruntime)
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.log_severity_level = 3  # errors
        with _failures_named("ONNX Runtime", loading=True):
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
            inputs = [(each.type, len(each.shape)) for each in self._session.get_inputs()]
            outputs = [len(each.shape) for each in self._session.get_outputs()]
        if inputs != [("tensor(float)", 5)] or outputs != [5]:
            raise _no_segmentation_model(f"{inputs} -> {outputs}")
        self._input = self._session.get_inputs()[0].name
        self._new_run = onnxruntime.RunOptions
        self._running: set = set()
        self._shape: tuple[int, ...] = ()  # of the last windows

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        run = self._new_run()
        run.log_severity_level = 4  # what goes wrong is raised, not printed
        # The arena keeps its memory, which spares asking for it again, only for a shape that comes
        # twice: what it kept for volumes of many sizes would add up.
        if windows.shape != self._shape:
            run.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._shape = windows.shape
        self._running.add(run)
        try:
            with _failures_named("ONNX Runtime", stopped=lambda: run.terminate):
                return self._session.run(None, {self._input: windows}, run)[0]
        finally:
            self._running.discard(run)

    def cancel(self) -> None:
        for run in tuple(self._running):
            run.terminate = True


@lru_cache(maxsize=1)  # a process has one
def _share_arena(onnxruntime: ModuleType) -> None:
    """One arena for all sessions, which grows by what is asked for.

    By default it grows to the next power of two, so that what a volume takes is up to twice what it
    needs, and cannot be foretold from a smaller one.
    """
    as_requested = {"arena_extend_strategy": 1}
    try:
        place = onnxruntime.OrtMemoryInfo(
            "Cpu",
            onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
            0,
            onnxruntime.OrtMemType.DEFAULT,
        )
        onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(as_requested))
    except Exception as problem:  # another part of this process made one; it serves as well
        log.debug("ONNX Runtime's memory arena is another's: %s", problem)


class _OpenVINO:
    def __init__(self, model: bytes, threads: int):
        openvino = _import("openvino")
        settings = {
            # Left alone, OpenVINO computes in bfloat16 where the processor can, so that results
            # would differ from one computer to the next.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        with _failures_named("OpenVINO", loading=True):
            core = openvino.Core()
            network = core.read_model(io.BytesIO(model))
            ranks = [len(each.partial_shape) for each in (*network.inputs, *network.outputs)]
            self._compile = lambda: core.compile_model(
                network, "CPU", settings
            ).create_infer_request()
            self._request = self._compile()
        if ranks != [5, 5]:
            raise _no_segmentation_model(ranks)
        self._one_at_a_time = threading.Lock()
        self._stopped = False

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._one_at_a_time, _failures_named("OpenVINO", stopped=lambda: self._stopped):
            if self._stopped:
                # After a cancel, the compiled network gave the shape and values of the pass that
                # was cancelled (2026.4), so it is not used again.
                self._request = self._compile()
                self._stopped = False
            self._request.start_async({0: windows}, share_inputs=True)
            self._request.wait()
            return self._request.get_output_tensor(0).data.copy()

    def cancel(self) -> None:
        self._stopped = True
        self._request.cancel()


_LOADERS = {"onnxruntime": _OnnxRuntime, "openvino": _OpenVINO}


def _preferred() -> str:
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
    return "openvino" if x86 and find_spec("openvino") else "onnxruntime"


def _import(engine: str) -> ModuleType:
    try:
        return import_module(engine)
    except ImportError as problem:
        raise DistillSegError(
            f"The inference engine '{engine}' cannot be used ({problem}); install it with: "
            f"pip install {engine}"
        ) from problem


@contextmanager
def _failures_named(
    engine: str, *, loading: bool = False, stopped: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Engines raise types of their own; callers see ours."""
    try:
        yield
    except DistillSegError:
        raise
    except Exception as problem:
        if stopped():
            raise Cancelled("The segmentation was cancelled; nothing was written.") from None
        # OpenVINO's messages begin with places in its source code.
        lines = (each for each in str(problem).split("\n") if not each.startswith("Exception from"))
        reason = " ".join(" ".join(lines).split())[:300].rstrip(".") or type(problem).__name__
        if isinstance(problem, MemoryError) or "alloc" in str(problem).lower():
            raise MemoryError(f"{engine}: {reason}") from problem
        if loading:
            raise PackageError(
                f"{engine} cannot load the model ({reason}); update it, or get the package again."
            ) from problem
        raise DistillSegError(
            f"{engine} failed while running the model ({reason}); try another engine or variant, "
            "and report this with the log."
        ) from problem


def _no_segmentation_model(found: object) -> PackageError:
    return PackageError(
        "The model must take one float image (N, C, D, H, W) and give logits (N, K, D, H, W), "
        f"found {found}; export it with `distillseg export`."
    )
