"""Measure the bundled packages' memory and reach again; their weights and cards stay as they are.

    python Testing/studies/remeasure_packages.py

For packages that were exported by an earlier version, which measured otherwise.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from DistillSegLib.export.packaging import measure_memory
from DistillSegLib.export.reach import measure_reach
from DistillSegLib.files import replacing
from DistillSegLib.manifest import Manifest
from DistillSegLib.package import ModelPackage, read_package, write_package
from DistillSegLib.places import resources
from DistillSegLib.runtime import Session


def remeasured(package: ModelPackage) -> Manifest:
    manifest, variants, halo = package.manifest, [], None
    channels = len(manifest.channels)
    for variant in manifest.variants:
        model = package.model_bytes(variant)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / variant.file
            path.write_bytes(model)
            memory = measure_memory(path, channels, manifest.multiple)
        variants.append(replace(variant, bytes_per_voxel=memory))
        if manifest.single_pass:
            halo = measure_reach(
                Session(model, engine="onnxruntime"),
                channels=channels,
                multiple=manifest.multiple,
                minimum=manifest.minimum,
                stride=variant.stride,
            )
    return replace(manifest, variants=tuple(variants), halo=halo)


def main() -> None:
    for path in sorted((resources() / "Models").glob("*.distillseg")):
        package = read_package(path)
        manifest = remeasured(package)
        windows = [package.check_window(variant) for variant in manifest.variants]
        logits = {v.name: expected for v, (_, expected) in zip(manifest.variants, windows)}
        models = {v.file: package.model_bytes(v) for v in package.manifest.variants}
        card = package.card
        for before, after in zip(package.manifest.variants, manifest.variants):
            old, new = (f"{v.bytes_per_voxel:,.0f} bytes per voxel" for v in (before, after))
            card = card.replace(old, new)
        with replacing(path) as temporary:
            write_package(
                temporary, manifest, card=card, models=models, window=windows[0][0], logits=logits
            )
        told = ", ".join(f"{v.bytes_per_voxel:.1f} bytes per voxel" for v in manifest.variants)
        print(f"{path.name}: {told}, sees {manifest.halo} voxels")


if __name__ == "__main__":
    main()
