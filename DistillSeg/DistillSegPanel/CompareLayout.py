"""The views of a comparison: A, B and their difference side by side, 3D and a plot below.

The slice views have a view group of their own and are linked among themselves, so that Red, Green
and Yellow stay as they are. What was shown before comes back when the comparison is left.

Main thread only. Without a main window there is nothing to show, and every call does nothing.
"""

import slicer

LAYOUT = 5417  # a number that no other layout uses
GROUP = 54
A, B, MAP = "DistillSegA", "DistillSegB", "DistillSegDiff"
SLICES = (A, B, MAP)
THREE_D, PLOT = "DistillSeg3D", "DistillSegProfile"
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#999999"  # told apart by colour-blind users too
ORIENTATIONS = {"axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal"}
PREVIOUS = "DistillSeg.PreviousLayout"  # attribute of the layout node, saved with the scene
MARGIN = 1.5  # of a structure's size, that the slice views show

_SLICE = """
   <item><view class="vtkMRMLSliceNode" singletontag="{tag}">
    <property name="orientation" action="default">Axial</property>
    <property name="viewlabel" action="default">{label}</property>
    <property name="viewcolor" action="default">{color}</property>
    <property name="viewgroup" action="default">{group}</property>
   </view></item>"""
_LAYOUT = """
<layout type="vertical" split="true">
 <item splitSize="600"><layout type="horizontal" split="true">{slices}
 </layout></item>
 <item splitSize="400"><layout type="horizontal" split="true">
  <item><view class="vtkMRMLViewNode" singletontag="{threeD}">
   <property name="viewlabel" action="default">3D</property>
   <property name="viewgroup" action="default">{group}</property>
  </view></item>
  <item><view class="vtkMRMLPlotViewNode" singletontag="{plot}">
   <property name="viewlabel" action="default">P</property>
  </view></item>
 </layout></item>
</layout>"""


def layoutXml():
    """The layout as Slicer's layout manager reads it."""
    views = ((A, "A", BLUE), (B, "B", ORANGE), (MAP, "D", GREY))
    slices = "".join(
        _SLICE.format(tag=tag, label=label, color=color, group=GROUP) for tag, label, color in views
    )
    return _LAYOUT.format(slices=slices, threeD=THREE_D, plot=PLOT, group=GROUP)


def register():
    """Make the layout known, so that a saved scene can show it; once is enough."""
    layoutNode = _layoutNode()
    if layoutNode is not None and not layoutNode.IsLayoutDescription(LAYOUT):
        layoutNode.AddLayoutDescription(LAYOUT, layoutXml())


def isShown():
    """Whether the views of the comparison are what the main window shows."""
    layoutNode = _layoutNode()
    return layoutNode is not None and layoutNode.GetViewArrangement() == LAYOUT


def show():
    """Show the views and remember what was shown; returns whether there is a window for them."""
    layoutNode = _layoutNode()
    if layoutNode is None:
        return False
    register()
    if not isShown():
        layoutNode.SetAttribute(PREVIOUS, str(layoutNode.GetViewArrangement()))
        slicer.app.layoutManager().setLayout(LAYOUT)
    for node in sliceNodes():
        node.SetViewGroup(GROUP)  # closing a scene resets it
    for composite in compositeNodes():
        composite.SetLinkedControl(True)
        composite.SetHotLinkedControl(True)
    view = viewNode(THREE_D, "vtkMRMLViewNode")
    if view is not None:
        view.SetBoxVisible(False)
        view.SetAxisLabelsVisible(False)
    return True


def hide():
    """Show again what was shown before."""
    if not isShown():
        return
    layoutNode = _layoutNode()
    layoutNode.RemoveAllMaximizedViewNodes()
    previous = layoutNode.GetAttribute(PREVIOUS)
    if not previous or int(previous) == LAYOUT:
        previous = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    layoutNode.RemoveAttribute(PREVIOUS)
    slicer.app.layoutManager().setLayout(int(previous))


def alone(name):
    """Show one view alone, in all the room there is; if it already is, show all again."""
    layoutNode, view = _layoutNode(), viewNode(name)
    if view is None or not isShown():
        return
    wasAlone = layoutNode.IsMaximizedViewNode(view)
    layoutNode.RemoveAllMaximizedViewNodes()
    if not wasAlone:
        layoutNode.AddMaximizedViewNode(view)


def setBackground(volumeNode, plane):
    """Show a volume in the slice views, cut along its own axes, and all of it."""
    for composite in compositeNodes():
        composite.SetBackgroundVolumeID(volumeNode.GetID() if volumeNode is not None else None)
        composite.SetForegroundVolumeID(None)
        composite.SetLabelVolumeID(None)
    setPlane(plane, volumeNode)
    if volumeNode is None or slicer.app.layoutManager() is None:
        return
    for name in SLICES:
        widget = slicer.app.layoutManager().sliceWidget(name)
        if widget is not None:
            widget.sliceLogic().FitSliceToBackground()


def setPlane(plane, volumeNode=None):
    """Turn the slice views to "axial", "coronal" or "sagittal", as the volume's axes lie."""
    for node in sliceNodes():
        node.SetOrientation(ORIENTATIONS[plane])
        if volumeNode is not None:
            node.RotateToVolumePlane(volumeNode)


def jumpTo(point):
    """Move the slices through a point (RAS, mm), without moving the picture."""
    for node in sliceNodes():
        node.JumpSliceByOffsetting(*point)


def frame(center, width, height):
    """Move the pictures so that a box of this size (mm) around a point (RAS) fills them."""
    for node in sliceNodes():
        columns, rows = node.GetDimensions()[:2]
        aspect = rows / columns if rows and columns else 1.0
        across = MARGIN * max(width, height / aspect)
        node.SetFieldOfView(across, across * aspect, node.GetFieldOfView()[2])
        node.SetXYZOrigin(0, 0, 0)
        node.JumpSliceByCentering(*center)


def look3D():
    """Let the 3D view look at what is in it."""
    manager = slicer.app.layoutManager()
    for number in range(manager.threeDViewCount if manager is not None else 0):
        widget = manager.threeDWidget(number)
        if widget.mrmlViewNode().GetLayoutName() == THREE_D:
            widget.threeDView().resetFocalPoint()


def plotView():
    """The widget of the plot, or None."""
    manager = slicer.app.layoutManager()
    for number in range(manager.plotViewCount if manager is not None else 0):
        widget = manager.plotWidget(number)
        if widget.mrmlPlotViewNode().GetLayoutName() == PLOT:
            return widget.plotView()
    return None


def viewNode(name, className="vtkMRMLSliceNode"):
    """A view of the comparison, or None before it was first shown."""
    return slicer.mrmlScene.GetSingletonNode(name, className)


def sliceNodes():
    """Those of A, B and the difference."""
    return [node for node in map(viewNode, SLICES) if node is not None]


def compositeNodes():
    """What the slice views show, one for each."""
    return [node for node in map(compositeNode, SLICES) if node is not None]


def compositeNode(name):
    """What one slice view shows, or None."""
    manager = slicer.app.layoutManager()
    widget = manager.sliceWidget(name) if manager is not None else None
    return widget.mrmlSliceCompositeNode() if widget is not None else None


def viewIds():
    """IDs of the views of the comparison that can show a segmentation."""
    found = [*sliceNodes(), viewNode(THREE_D, "vtkMRMLViewNode")]
    return [node.GetID() for node in found if node is not None]


def _layoutNode():
    manager = slicer.app.layoutManager()
    return manager.layoutLogic().GetLayoutNode() if manager is not None else None
