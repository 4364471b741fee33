"""Other pipelines on the same volume with the same weights, each as its own project runs it.

From file to file, in a child process; torch, MONAI and nnU-Net are imported by these functions
only, and that import is a stage of the measurement. None uses mirrored copies.

Work differs where the projects differ: nnU-Net resamples images by cubic splines and logits
linearly, MONAI both linearly and from the first voxel's centre instead of its edge; both run
windows of half overlap with Gaussian weights. Labels come from logits on the image's own grid
everywhere.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from DistillSegLib.benchmark.measure import Stopwatch

NEEDS = {
    "torch": ("torch",),
    "monai": ("torch", "monai", "nibabel"),
    "nnunet": ("torch", "nnunetv2"),
}
OVERLAP = 0.5


def absent(peer: str) -> str:
    """The sentence for a peer that is not installed; empty if it is."""
    missing = [name for name in NEEDS[peer] if find_spec(name) is None]
    if not missing:
        return ""
    return (
        f"'{peer}' is left out, for {' and '.join(missing)} is not installed; run: "
        f"pip install {' '.join(missing)}"
    )


def torch_engine(
    stopwatch: Stopwatch, threads: int, *, network: Mapping[str, Any], image: str, out: str
) -> dict[str, Any]:
    """PyTorch at its plainest: linear image, one pass, logits upsampled class by class."""
    with stopwatch("import"):
        import SimpleITK as sitk
        import torch
        from torch.nn import functional

        torch.set_num_threads(threads)
    with stopwatch("load"):
        from DistillSegLib.benchmark.students import CLIP, MEAN, STD

        net = _network(network)
    with stopwatch("read"):
        volume = sitk.ReadImage(image)
        voxels = torch.from_numpy(sitk.GetArrayFromImage(volume))
    shape = tuple(voxels.shape)
    with torch.inference_mode():
        with stopwatch("preprocess"):
            array = functional.interpolate(
                voxels.float()[None, None], tuple(network["grid"]), mode="trilinear"
            )
            array = (array.clamp(*CLIP) - MEAN) / STD
            padded = [-(-n // net.multiple) * net.multiple for n in network["grid"]]
            ends = [(0, new - old) for old, new in zip(network["grid"], padded)]
            array = functional.pad(array, [n for pair in reversed(ends) for n in pair])
        with stopwatch("network"):
            d, h, w = network["grid"]
            logits = net(array)[0, :, :d, :h, :w]
        with stopwatch("labels"):
            labels, best = torch.zeros(shape, dtype=torch.uint8), torch.full(shape, -torch.inf)
            for k, scores in enumerate(logits):
                scores = functional.interpolate(scores[None, None], shape, mode="trilinear")[0, 0]
                labels.masked_fill_(scores > best, k)
                torch.maximum(best, scores, out=best)
    with stopwatch("write"):
        result = sitk.GetImageFromArray(labels.numpy())
        result.CopyInformation(volume)
        sitk.WriteImage(result, out, useCompression=True)
    return {"parameters": _parameters(net)}


def monai(
    stopwatch: Stopwatch, threads: int, *, network: Mapping[str, Any], image: str, out: str
) -> dict[str, Any]:
    """MONAI: Spacing, `sliding_window_inference`, Invert (linear, of logits), argmax, SaveImage."""
    with stopwatch("import"):
        import torch
        from monai import transforms
        from monai.inferers import sliding_window_inference

        torch.set_num_threads(threads)
    with stopwatch("load"):
        from DistillSegLib.benchmark.students import CLIP, MEAN, STD

        net = _network(network)
        _turn_kernels(net)  # its arrays are x, y, z
    scaled = [(end - MEAN) / STD for end in CLIP]
    read = transforms.Compose(
        [
            transforms.LoadImaged("image", reader="NibabelReader"),
            transforms.EnsureChannelFirstd("image"),
        ]
    )
    prepare = transforms.Compose(
        [
            transforms.Spacingd(
                "image",
                pixdim=network["spacing_mm"][::-1],
                mode="bilinear",
            ),
            transforms.ScaleIntensityRanged("image", *CLIP, *scaled, clip=True),
        ]
    )
    invert = transforms.Invertd(
        "labels", transform=prepare, orig_keys="image", nearest_interp=False, to_tensor=True
    )
    with stopwatch("read"):
        case = read({"image": image})
    with torch.inference_mode():
        with stopwatch("preprocess"):
            case = prepare(case)
        with stopwatch("network"):
            case["labels"] = sliding_window_inference(
                case["image"][None], network["patch"][::-1], 1, net, OVERLAP, mode="gaussian"
            )[0]
        with stopwatch("labels"):
            labels = transforms.AsDiscrete(argmax=True)(invert(case)["labels"])
    with stopwatch("write"):
        place = Path(out)
        save = transforms.SaveImage(
            output_dir=place.parent,
            output_postfix="",
            output_dtype="uint8",
            resample=False,
            separate_folder=False,
            print_log=False,
        )
        save(labels, filename=place.parent / place.name.split(".")[0])
    return {"parameters": _parameters(net)}


def nnunet(
    stopwatch: Stopwatch,
    threads: int,
    *,
    network: Mapping[str, Any],
    image: str,
    out: str,
    resampling: str = "default",
) -> dict[str, Any]:
    """nnU-Net's own reader, preprocessor, predictor and export, with the plans it would write.

    Args:
        resampling: "default" (scipy and scikit-image), or "torch" (`resample_torch_fornnunet`).
    """
    with stopwatch("import"), redirect_stdout(io.StringIO()):
        import torch
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
        from nnunetv2.inference.export_prediction import (
            convert_predicted_logits_to_segmentation_with_correct_shape as convert,
        )
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        torch.set_num_threads(threads)
    with stopwatch("load"):
        net = _network(network)
        dataset = _dataset()
        plans = PlansManager(_plans(network, resampling))
        configuration = plans.get_configuration("3d_fullres")
        predictor = nnUNetPredictor(
            tile_step_size=OVERLAP,
            use_mirroring=False,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        weights = [net.state_dict()]
        predictor.manual_initialization(net, plans, configuration, weights, dataset, "", None)
    with stopwatch("read"):
        voxels, properties = SimpleITKIO().read_images([image])
    with stopwatch("preprocess"), redirect_stdout(io.StringIO()):
        preprocessor = configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            voxels, None, properties, plans, configuration, dataset
        )
        data = torch.from_numpy(data)
    with stopwatch("network"):
        logits = predictor.predict_logits_from_preprocessed_data(data)
    with stopwatch("labels"):
        labels = convert(
            logits,
            plans,
            configuration,
            predictor.label_manager,
            properties,
            num_threads_torch=threads,
        )
    with stopwatch("write"):
        SimpleITKIO().write_seg(labels, out, properties)
    return {"parameters": _parameters(net)}


def _network(network: Mapping[str, Any]):
    from DistillSegLib.benchmark.students import load

    return load(network["name"], tuple(network["patch"]), network["weights"])


def _parameters(net: Any) -> int:
    return sum(each.numel() for each in net.parameters())


def _turn_kernels(net: Any) -> None:
    """Make a network for (z, y, x) one for (x, y, z), at no cost while it runs."""
    for weight in net.parameters():
        if weight.ndim == 5:
            weight.data = weight.data.transpose(2, 4).contiguous()


def _dataset() -> dict[str, Any]:
    from DistillSegLib.benchmark.subject import CLASSES

    names = ["background", *CLASSES[1:]]
    return {
        "channel_names": {"0": "CT"},
        "labels": {name: value for value, name in enumerate(names)},
        "file_ending": ".nii.gz",
    }


def _plans(network: Mapping[str, Any], resampling: str) -> dict[str, Any]:
    """nnUNetPlans.json for this volume, with nnU-Net's default settings."""
    from DistillSegLib.benchmark.students import CLIP, MEAN, STD, default_architecture

    values = {"mean": MEAN, "std": STD, "median": MEAN, "min": CLIP[0], "max": CLIP[1]}
    values |= {"percentile_00_5": CLIP[0], "percentile_99_5": CLIP[1]}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(network["patch"]),
        "median_image_size_in_voxels": list(network["grid"]),
        "spacing": list(network["spacing_mm"]),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "architecture": default_architecture(tuple(network["patch"])),
        **_resampling(resampling),
    }
    return {
        "dataset_name": "Dataset999_Phantom",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(network["spacing_mm"]),
        "original_median_shape_after_transp": list(network["grid"]),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": values},
    }


def _resampling(kind: str) -> dict[str, Any]:
    if kind == "torch":
        name = "resample_torch_fornnunet"
        given = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}
        settings = {"data": given, "seg": given | {"is_seg": True}, "probabilities": given}
    else:
        name = "resample_data_or_seg_to_shape"
        given = {"is_seg": False, "order_z": 0, "force_separate_z": None}
        settings = {
            "data": given | {"order": 3},
            "seg": given | {"is_seg": True, "order": 1},
            "probabilities": given | {"order": 1},
        }
    return {f"resampling_fn_{what}": name for what in settings} | {
        f"resampling_fn_{what}_kwargs": each for what, each in settings.items()
    }
