"""Whether the numbers of a comparison still are those of what is chosen.

What was compared, and whether it was edited since, is kept with the table of the numbers, and so
with a saved scene. Main thread only.
"""

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

A, B = "DistillSeg.A", "DistillSeg.B"  # roles of the references from the table
EDITED = "DistillSeg.Edited"  # attribute of the table: "A", "B" or "AB"
EVENTS = ("SourceRepresentationModified", "SegmentAdded", "SegmentRemoved")


class CompareEdits(VTKObservationMixin):
    """Watches A and B of a table.

    Args:
        onChange: called when one of them was edited for the first time.
    """

    def __init__(self, onChange):
        VTKObservationMixin.__init__(self)
        self._onChange = onChange
        self._table = None
        self._nodes = ()

    def compared(self, table, a, b):
        """The table holds new numbers, those of A and B."""
        table.SetNodeReferenceID(A, a.GetID())
        table.SetNodeReferenceID(B, b.GetID())
        table.RemoveAttribute(EDITED)
        self.follow(table)

    def follow(self, table):
        """Watch what a table is about; None watches nothing."""
        nodes = tuple(table.GetNodeReference(role) for role in (A, B)) if table else ()
        if (table, nodes) == (self._table, self._nodes):
            return
        self.removeObservers()
        self._table, self._nodes = table, nodes
        for node in filter(None, nodes):
            for name in EVENTS:
                event = getattr(slicer.vtkSegmentation, name)
                self.addObserver(node.GetSegmentation(), event, self._onEdited)
            event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
            self.addObserver(node, event, self._onEdited)

    def warning(self, a, b):
        """Why the numbers are not those of A and B as they are now; empty if they are."""
        if self._table is None or not all(self._nodes):
            return ""
        if self._nodes != (a, b):
            return _("The numbers are of '{a}' and '{b}'; compare again.").format(
                a=self._nodes[0].GetName(), b=self._nodes[1].GetName()
            )
        edited = self._table.GetAttribute(EDITED) or ""
        texts = {
            "A": _("Compared before the last edit of A; compare again."),
            "B": _("Compared before the last edit of B; compare again."),
            "AB": _("Compared before the last edits of A and B; compare again."),
        }
        return texts.get(edited, "")

    def _onEdited(self, caller, _event):
        before = self._table.GetAttribute(EDITED) or ""
        changed = {
            letter
            for letter, node in zip("AB", self._nodes)
            if node is not None and caller in (node, node.GetSegmentation())
        }
        now = "".join(sorted(changed | set(before)))
        if now != before:
            self._table.SetAttribute(EDITED, now)
            self._onChange()
