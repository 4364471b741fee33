"""A model of two channels, T1 and FLAIR, and volumes for it."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import slicer
from PanelCase import FAST

from DistillSegLib import install_package, load_package
from DistillSegLib.package import write_package

# ONNX of one convolution of 1 x 1 x 1 from two channels a, b to the logits 0, a - b - 1, b - a - 1.
DIFFERENCE = base64.b64decode(
    "CAg6tQEKGwoFaW1hZ2UKAXcKAWISBmxvZ2l0cyIEQ29udhIBdCopCAMIAggBCAEIARABQgF3ShgAAAAAAAAAAAAAgD8A"
    "AIC/AACAvwAAgD8qFQgDEAFCAWJKDAAAAAAAAIC/AACAv1onCgVpbWFnZRIeChwIARIYCgMSAW4KAggCCgMSAWQKAxIB"
    "aAoDEgF3YigKBmxvZ2l0cxIeChwIARIYCgMSAW4KAggDCgMSAWQKAxIBaAoDEgF3QgQKABAR"
)


class TwoChannels:
    """For test cases of the panel."""

    def shifted(self, name):
        """A volume with a bright box; in another place for T1 than for FLAIR."""
        voxels = np.random.default_rng(2).uniform(0, 50, (30, 32, 34)).astype(np.float32)
        first = 4 if "t1" in name.lower() else 18
        voxels[8:20, 8:24, first : first + 9] = 1000
        node = slicer.util.addVolumeFromArray(voxels, name=name)
        slicer.app.processEvents()
        return node

    def twoChannels(self):
        """Installs a model that finds where one channel is brighter than the other."""
        bundled = load_package(FAST.replace("@", "-")).manifest
        fixed = replace(
            bundled.preprocessing.intensity[0], scheme="fixed", clip=(0, 1000), mean=0, std=100
        )
        manifest = replace(
            bundled,
            id="two",
            channels=("T1", "FLAIR"),
            preprocessing=replace(
                bundled.preprocessing, spacing_mm=(1, 1, 1), intensity=(fixed, fixed)
            ),
            scope=replace(bundled.scope, intensity=bundled.scope.intensity * 2),
            variants=(replace(bundled.variants[0], stride=1, size_bytes=len(DIFFERENCE)),),
        )
        window = np.random.default_rng(0).uniform(0, 10, (1, 2, *manifest.window))
        window = window.astype(np.float32)
        gap = window[:, :1] - window[:, 1:]
        path = write_package(
            self.home / "two.distillseg",
            manifest,
            card="# Difference\n\nFor tests.\n",
            models={manifest.variants[0].file: DIFFERENCE},
            window=window,
            logits={manifest.variants[0].name: np.concatenate([0 * gap, gap - 1, -gap - 1], 1)},
        )
        install_package(path)
        return "two@1.0.0"
