"""The packages at hand, read once and again only when their files change."""

from dataclasses import dataclass
from pathlib import Path

from DistillSegLib.errors import PackageError
from DistillSegLib.package import SUFFIX, ModelPackage, package_files, read_package
from DistillSegLib.places import resources


@dataclass(frozen=True)
class Entry:
    """A package file.

    Attributes:
        package: None where it cannot be read; problem: why, in one sentence.
    """

    path: Path
    package: ModelPackage | None = None
    problem: str = ""

    @property
    def model(self):
        """Its name in scenes, "id@version"; empty if it cannot be read."""
        return modelOf(self.package) if self.package is not None else ""

    @property
    def title(self):
        """For people."""
        return self.package.manifest.title if self.package is not None else self.name

    @property
    def name(self):
        """As `remove_package` knows it."""
        if self.package is not None:
            return self.package.manifest.name
        return self.path.name.removesuffix(SUFFIX)

    @property
    def isBundled(self):
        """Whether it came with the extension, and cannot be removed."""
        return self.path.is_relative_to(resources())


class ModelList:
    """All package files, installed and bundled."""

    def __init__(self):
        self._read = {}  # path -> (what tells a changed file, entry)

    def entries(self):
        """Those that can be used by title, then the others; of two equal ones the installed."""
        found = {}
        for entry in self._entries():
            found.setdefault(entry.model or str(entry.path), entry)
        return sorted(found.values(), key=lambda e: (bool(e.problem), e.title.casefold(), e.model))

    def packages(self):
        """All that can be used, by "id@version"."""
        return {entry.model: entry.package for entry in self.entries() if entry.package}

    def find(self, model):
        """The package "id@version", or None where it is not at hand."""
        return self.packages().get(model)

    def _entries(self):
        known, self._read = self._read, {}
        for path in package_files():
            try:
                status = path.stat()
            except OSError:  # removed just now
                continue
            mark = (status.st_mtime_ns, status.st_size)
            earlier = known.get(path)
            isSame = earlier is not None and earlier[0] == mark
            self._read[path] = earlier if isSame else (mark, _entryOf(path))
        return [entry for _mark, entry in self._read.values()]


def modelOf(package):
    """A package as scenes name it: "id@version"."""
    return f"{package.manifest.id}@{package.manifest.version}"


def _entryOf(path):
    try:
        return Entry(path, read_package(path))
    except PackageError as problem:
        return Entry(path, problem=str(problem))
