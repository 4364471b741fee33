"""The packages at hand, read once and again only when their files change."""

from DistillSegLib.errors import PackageError
from DistillSegLib.package import package_files, read_package


class ModelList:
    """Packages by "id@version"; those that cannot be read, by their file with the reason."""

    def __init__(self):
        self._read = {}  # path -> (what tells a changed file, package or None, problem)

    def packages(self):
        """All that can be used, by title; of one that is bundled and installed, the installed."""
        found = {}
        for package, _problem in self._entries().values():
            if package is not None:
                found.setdefault(modelOf(package), package)
        return dict(sorted(found.items(), key=lambda item: item[1].manifest.title))

    def problems(self):
        """Path -> why it cannot be used, in one sentence."""
        entries = self._entries().items()
        return {path: problem for path, (package, problem) in entries if package is None}

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
            entry = known.get(path)
            self._read[path] = entry if entry and entry[0] == mark else (mark, *_readOrWhy(path))
        return {path: entry[1:] for path, entry in self._read.items()}


def modelOf(package):
    """A package as scenes name it: "id@version"."""
    return f"{package.manifest.id}@{package.manifest.version}"


def _readOrWhy(path):
    try:
        return read_package(path), ""
    except PackageError as problem:
        return None, str(problem)
