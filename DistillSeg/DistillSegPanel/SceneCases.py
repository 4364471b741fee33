"""Which volumes of the scene are segmented by a batch, and which of them belong to one patient.

Main thread only.
"""

from dataclasses import dataclass, replace

import slicer
from slicer.i18n import tr as _


@dataclass(frozen=True)
class SceneCase:
    """One examination of the scene.

    Attributes:
        name: unique among the cases.
        volumes: one for each channel of the model, in its order; none if it cannot be segmented.
        reason: why it cannot be.
    """

    name: str
    volumes: tuple = ()
    reason: str = ""


def casesOfScene(channels):
    """What there is to segment; of several channels, the volumes that belong together.

    Volumes belong together that lie in one folder or study of the subject hierarchy, or outside of
    any, whose names are alike but for the channel's, such as "anna T1" and "anna FLAIR".
    """
    volumes = volumesOfScene()
    if len(channels) == 1:
        cases = [SceneCase(node.GetName() or "", (node,)) for node in volumes]
    else:
        cases = [_caseOf(*group, channels) for group in _grouped(volumes, channels).values()]
    names = [case.name for case in cases]
    return [
        case if names.count(case.name) == 1 else replace(case, name=_toldApart(case, number))
        for number, case in enumerate(cases, start=1)
    ]


def volumesOfScene():
    """Images that a user sees in the lists of volumes; no label maps, no colours."""
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()
    ]


def _grouped(volumes, channels):
    """Volumes by what they have in common: {key: (name, [(channel or None, volume)])}."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    groups = {}
    for node in volumes:
        channel, rest = channelIn(node.GetName() or "", channels)
        item = hierarchy.GetItemByDataNode(node)
        place = hierarchy.GetItemParent(item) if item else 0
        isOutside = not place or place == hierarchy.GetSceneItemID()
        name = rest or node.GetName() or "" if isOutside else hierarchy.GetItemName(place)
        key = (0, rest.casefold()) if isOutside else (place, "")
        groups.setdefault(key, (name, []))[1].append((channel, node))
    return groups


def _caseOf(name, members, channels):
    found = [[node for channel, node in members if channel == each] for each in channels]
    if all(len(nodes) == 1 for nodes in found):
        return SceneCase(name, tuple(nodes[0] for nodes in found))
    counts = ", ".join(f"{each}: {len(nodes)}" for each, nodes in zip(channels, found))
    return SceneCase(
        name,
        reason=_(
            "The model takes one volume of each channel, and by the names there are {counts}; put "
            "a patient's volumes into one folder of 'Data' and name them after the channels."
        ).format(counts=counts),
    )


def channelIn(name, channels):
    """The channel that a volume's name tells, the longest if several do, and the rest of the name.

    >>> channelIn("anna_T1c", ("T1", "T1c"))
    ("T1c", "anna")
    """
    told = [each for each in channels if each.casefold() in name.casefold()]
    if not told:
        return None, name
    channel = max(told, key=len)
    start = name.casefold().find(channel.casefold())
    before, after = name[:start].rstrip(" _-."), name[start + len(channel) :].lstrip(" _-.")
    return channel, " ".join(part for part in (before, after) if part)


def _toldApart(case, number):
    """A name that no other case has."""
    return f"{case.name} ({case.volumes[0].GetID() if case.volumes else number})"
