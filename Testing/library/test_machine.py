"""Cores and memory of this computer."""

from __future__ import annotations

import ctypes
import os

from DistillSegLib import machine


def test_this_computer_has_cores_and_memory():
    assert 1 <= machine.physical_cores() <= os.cpu_count()
    assert machine.free_memory_bytes() > 1 << 20
    assert machine.peak_memory_bytes() > 1 << 20


def test_windows_cores_are_counted_once_each(monkeypatch):
    """Windows tells of cores (0), nodes (1), caches (2) and packages (3) in one list."""
    told = (0, 2, 2, 0, 2, 3, 1, 0)

    class Kernel:
        def GetLogicalProcessorInformation(self, records, length):
            length._obj.value = len(told) * ctypes.sizeof(machine._Processors)
            for record, relationship in zip(records or (), told):
                record.relationship = relationship
            return records is not None

    monkeypatch.setattr(machine.sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "windll", type("Dlls", (), {"kernel32": Kernel()}), raising=False)
    assert machine.physical_cores() == 3


def test_macos_is_asked_for_physical_cores(monkeypatch):
    class System:
        def sysctlbyname(self, name, found, _size, _new, _length):
            assert name == b"hw.physicalcpu"
            found._obj.value = 8
            return 0

    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: System())
    assert machine.physical_cores() == 8
