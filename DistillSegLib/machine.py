"""What this computer has to offer: cores and memory, without a package for it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def physical_cores() -> int:
    """Physical cores that this process may run on; 0 where the system does not say.

    A second thread on the same core does not speed up arithmetic, and a container's share counts,
    not the machine it runs on.
    """
    if sys.platform == "win32":
        return _windows_cores()
    if sys.platform == "darwin":
        return _macos_cores()
    if not hasattr(os, "sched_getaffinity"):
        return 0
    allowed = os.sched_getaffinity(0)
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = {_first_line(topology.format(cpu)) or str(cpu) for cpu in allowed}
    quota, _, period = _first_line("/sys/fs/cgroup/cpu.max").partition(" ")
    share = round(int(quota) / int(period)) if quota.isdigit() and period.isdigit() else len(cores)
    return max(1, min(len(cores), share))


def free_memory_bytes() -> int:
    """Memory that can be used now without swapping; a cautious guess where the system hides it."""
    if sys.platform == "win32":
        return _windows_free_memory()
    if not Path("/proc/meminfo").exists():  # macOS tells the total only
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    free = _kilobytes("/proc/meminfo", "MemAvailable")
    limit = _first_line("/sys/fs/cgroup/memory.max")
    if limit.isdigit():
        used = int(_first_line("/sys/fs/cgroup/memory.current") or 0)
        free = min(free, max(int(limit) - used, 0))
    return free


def peak_memory_bytes() -> int:
    """The most memory this process has held at once since it began (its resident set)."""
    if sys.platform == "win32":
        return _windows_peak_memory()
    if Path("/proc/self/status").exists():
        # Not ru_maxrss: under Linux a child process begins with its parent's.
        return _kilobytes("/proc/self/status", "VmHWM")
    import resource  # absent under Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").split("\n", 1)[0]
    except OSError:
        return ""


def _kilobytes(path: str, key: str) -> int:
    """Bytes of a line such as "MemAvailable:  123 kB"."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _macos_cores() -> int:
    count, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    read = ctypes.CDLL(None).sysctlbyname
    failed = read(b"hw.physicalcpu", ctypes.byref(count), ctypes.byref(size), None, 0)
    return 0 if failed else count.value


class _Processors(ctypes.Structure):  # SYSTEM_LOGICAL_PROCESSOR_INFORMATION
    _fields_ = [
        ("mask", ctypes.c_size_t),
        ("relationship", ctypes.c_int),
        ("of_relationship", ctypes.c_ulonglong * 2),
    ]


def _windows_cores() -> int:
    length = ctypes.c_uint32(0)
    ask = ctypes.windll.kernel32.GetLogicalProcessorInformation
    ask(None, ctypes.byref(length))  # fails, and says how much it would tell
    records = (_Processors * (length.value // ctypes.sizeof(_Processors)))()
    if not ask(records, ctypes.byref(length)):
        return 0
    return sum(record.relationship == 0 for record in records)  # RelationProcessorCore


def _windows_free_memory() -> int:
    class Status(ctypes.Structure):  # MEMORYSTATUSEX
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
            (name, ctypes.c_uint64) for name in ("total", "free", "c", "d", "e", "f", "g")
        ]

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status.free


def _windows_peak_memory() -> int:
    class Counters(ctypes.Structure):  # PROCESS_MEMORY_COUNTERS
        _fields_ = [("size", ctypes.c_uint32), ("faults", ctypes.c_uint32)] + [
            (name, ctypes.c_size_t) for name in ("peak", "now", "a", "b", "c", "d", "e", "f")
        ]

    counters = Counters(size=ctypes.sizeof(Counters))
    process = ctypes.c_void_p(-1)  # this one
    ctypes.windll.psapi.GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size)
    return counters.peak
