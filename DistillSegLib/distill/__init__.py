"""The list of terms: what a recipe may call each of them."""

from __future__ import annotations

from DistillSegLib.distill.dsm import RegionDice
from DistillSegLib.distill.emkd import FocalDice, ImportanceMaps, RegionAffinity
from DistillSegLib.distill.generic import DIST, ChannelWise
from DistillSegLib.distill.gtan import MovingTarget
from DistillSegLib.distill.lcov import ClassAffinity, MultiScale
from DistillSegLib.distill.response import PredictionMaps
from DistillSegLib.distill.supervised import LabelLoss
from DistillSegLib.distill.ummkd import DomainAgreement, DomainLabel
from DistillSegLib.distill.views import Term

TERMS: dict[str, type[Term]] = {
    "label": LabelLoss,
    "region_dice": RegionDice,
    "prediction_maps": PredictionMaps,
    "importance_maps": ImportanceMaps,
    "region_affinity": RegionAffinity,
    "focal_dice": FocalDice,
    "moving_target": MovingTarget,
    "channel_wise": ChannelWise,
    "dist": DIST,
    "class_affinity": ClassAffinity,
    "multi_scale": MultiScale,
    "domain_agreement": DomainAgreement,
    "domain_label": DomainLabel,
}
