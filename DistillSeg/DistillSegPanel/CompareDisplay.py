"""How A, B and their difference look in the views of the comparison.

Each gets a display node of its own for these views, and what shows it elsewhere is kept out of
them. So nothing that users set for their segmentations is changed, and all of it is back when the
comparison is left: also after a scene was saved in the midst of one, for what is needed is kept in
attributes.

Our display nodes are hidden then, not removed: Slicer's displayable managers keep pointers to every
display node of a segmentation, and would follow them to freed memory at its next change.

Main thread only.
"""

import slicer

from DistillSegPanel import CompareLayout as Layout

OURS = "DistillSeg.Comparison"  # attribute of our display nodes: "A", "B" or "D"
VIEWS = "DistillSeg.Views"  # attribute of others: the views they were shown in before
SIDE_BY_SIDE, A_FILLED, B_FILLED = "sideBySide", "aFilled", "bFilled"
FILL, OUTLINE_PIXELS = 0.5, 3
FAINT_3D = 0.4  # of B, so that A is seen through it


class CompareDisplay:
    """Shows and hides; see the module's docstring.

    Attributes:
        style: `SIDE_BY_SIDE`, or both in each view: `A_FILLED` or `B_FILLED`, the other an outline.
        blinkingB: whether it is B's turn in the view of A; None without blinking.
        distances: whether B is an outline on distances in the third view, in place of the map.
    """

    def __init__(self):
        self.style = SIDE_BY_SIDE
        self.blinkingB = None
        self.distances = False
        self._nodes = {}  # what is shown as "A", "B" and "D"

    def show(self, a, b, difference=None):
        """Show two segmentation nodes and their difference in the views of the comparison."""
        self._nodes = {"A": a, "B": b, "D": difference}
        for letter, node in self._nodes.items():
            if node is not None and ownDisplay(node, letter) is None:
                _addDisplay(node, letter)
        self.keepOthersOut()
        self.apply()

    def apply(self):
        """Bring style, blinking and views to what is shown now."""
        viewA, viewB, viewMap = (_idOf(name) for name in Layout.SLICES)
        threeD = _idOf(Layout.THREE_D, "vtkMRMLViewNode")
        both = self.style != SIDE_BY_SIDE
        inA = [viewA, viewB] if both else [viewA]
        inB = [viewA, viewB] if both else [viewB]
        if self.blinkingB is not None:  # in turns, in the view of A
            inA = [each for each in inA if each != viewA or not self.blinkingB]
            inB = [viewB, viewA] if self.blinkingB else [viewB]
        if self.distances:
            inB = [*inB, viewMap]
        for display in _displays():
            letter = display.GetAttribute(OURS)
            if letter and ownDisplay(self._nodes.get(letter), letter) is not display:
                display.SetVisibility(False)  # of what was compared before
                continue
            views = {"A": [*inA, threeD], "B": [*inB, threeD], "D": [viewMap]}.get(letter)
            if views is not None:
                _setViews(display, [each for each in views if each])
                _setLook(display, isFilled=letter == "D" or self._isFilled(letter))
                if letter == "D":
                    display.SetVisibility(not self.distances)

    def _isFilled(self, letter):
        return letter == ("B" if self.style == B_FILLED else "A")

    def solo(self, a, b, segmentA, segmentB):
        """Show one structure of each, or all where the IDs are None."""
        for letter, node, segment in (("A", a, segmentA), ("B", b, segmentB)):
            display = ownDisplay(node, letter)
            if display is not None:
                display.SetAllSegmentsVisibility(segmentA is None and segmentB is None)
                if segment is not None:
                    display.SetSegmentVisibility(segment, True)

    def setDifferenceOpacity(self, opacity):
        """0 to 1."""
        for display in _displays():
            if display.GetAttribute(OURS) == "D":
                display.SetOpacity2DFill(opacity)

    def keepOthersOut(self):
        """Keep what is not ours out of the views of the comparison, and remember where it was."""
        ours = set(Layout.viewIds())
        nodes = slicer.util.getNodesByClass("vtkMRMLAbstractViewNode")
        others = [node.GetID() for node in nodes if node.GetID() not in ours]
        for display in _displays():
            if not display.GetAttribute(OURS) and display.GetAttribute(VIEWS) is None:
                before = display.GetViewNodeIDs()
                kept = [each for each in before if each not in ours] if before else others
                if kept != list(before):
                    display.SetAttribute(VIEWS, " ".join(before))
                    _setViews(display, kept)

    def leave(self):
        """Hide our display nodes and show everything where it was."""
        self._nodes = {}
        for display in _displays():
            if display.GetAttribute(OURS):
                display.SetVisibility(False)  # its list of views stays, so that it cannot come back
            elif display.GetAttribute(VIEWS) is not None:
                _setViews(display, display.GetAttribute(VIEWS).split())
                display.RemoveAttribute(VIEWS)


def ownDisplay(node, letter):
    """Our display node of a segmentation as "A", "B" or "D", or None."""
    for number in range(node.GetNumberOfDisplayNodes() if node is not None else 0):
        display = node.GetNthDisplayNode(number)
        if display is not None and display.GetAttribute(OURS) == letter:
            return display
    return None


def _addDisplay(node, letter):
    display = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentationDisplayNode")
    display.UnRegister(None)
    display.SetName(f"{node.GetName()} compared as {letter}")
    display.SetAttribute(OURS, letter)
    _setViews(display, [])
    display = slicer.mrmlScene.AddNode(display)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()  # the first one is the user's
    node.AddAndObserveDisplayNodeID(display.GetID())
    display.SetAllSegmentsVisibility(True)
    if letter == "B":
        display.SetOpacity3D(FAINT_3D)


def _setLook(display, isFilled):
    display.SetVisibility(True)
    display.SetVisibility2DFill(isFilled)
    display.SetVisibility2DOutline(not isFilled)
    if display.GetAttribute(OURS) != "D":
        display.SetOpacity2DFill(FILL)
    display.SetOpacity2DOutline(1.0)
    display.SetSliceIntersectionThickness(OUTLINE_PIXELS)
    display.SetVisibility3D(display.GetAttribute(OURS) != "D")


def _setViews(display, ids):
    if list(display.GetViewNodeIDs()) == list(ids):
        return
    with slicer.util.NodeModify(display):
        display.RemoveAllViewNodeIDs()
        for each in ids:
            display.AddViewNodeID(each)


def _displays():
    return slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode")


def _idOf(name, className="vtkMRMLSliceNode"):
    node = Layout.viewNode(name, className)
    return node.GetID() if node is not None else ""
