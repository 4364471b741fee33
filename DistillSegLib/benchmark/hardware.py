"""What a measurement was made on, without names of machines or people."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from DistillSegLib.machine import free_memory_bytes, physical_cores

PACKAGES = ("numpy", "SimpleITK", "onnxruntime", "openvino", "torch", "monai", "nnunetv2")


def hardware() -> dict[str, Any]:
    """Processor, cores, memory, system and versions."""
    return {
        "processor": processor(),
        "cores": physical_cores() or os.cpu_count(),
        "memory_gb": round(_memory_bytes() / 1e9, 1),
        "free_memory_gb": round(free_memory_bytes() / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
    }


def processor() -> str:
    """The processor's name as its maker writes it; its family where the system hides that."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    if platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of what takes part and is installed; nothing is imported for it."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware_line(found: dict[str, Any], threads: int) -> str:
    """One sentence for people."""
    packages = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    load = "" if found["load"] is None else f", load {found['load']} before the run"
    return (
        f"{found['processor']}, {_count(found['cores'], 'core')}, {found['memory_gb']} GB, "
        f"{found['system']}; {_count(threads, 'thread')} for every pipeline{load}; "
        f"Python {found['python']}, {packages}."
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _memory_bytes() -> int:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free_memory_bytes()  # Windows: what is free is the most that can be said without more
