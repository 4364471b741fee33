"""Which slice of which structure is looked at: stepping through the worst ones. No MRML, no Qt."""

from slicer.i18n import tr as _

COUNT = 10
APART_MM = 5.0


class WorstSlices:
    """The ten slices with the largest disagreement of one structure, and the present one.

    Attributes:
        slices: their numbers in A's image, worst first.
        position: of the one that is shown, in `slices`; -1 while another one is shown.
        shown: number of the slice that is shown; -1 for none.
    """

    def __init__(self):
        self.comparison = self.row = None
        self.plane = "axial"
        self.slices = ()
        self.position = self.shown = -1

    def clear(self):
        """Nothing is looked at."""
        self.__init__()

    def start(self, comparison, row, plane):
        """Look at the worst slice of a structure."""
        self.comparison, self.row, self.plane = comparison, row, plane
        known = row.disagreement
        self.slices = known.worst(plane, count=COUNT, apart_mm=APART_MM) if known else ()
        self.position = 0 if self.slices else -1
        self.shown = self.slices[0] if self.slices else -1

    def step(self, by):
        """Go to the next (1) or the previous (-1) one; at the end, begin anew."""
        if self.slices:
            start = self.position if self.position >= 0 else (-1 if by > 0 else 0)
            self.position = (start + by) % len(self.slices)
            self.shown = self.slices[self.position]

    def goTo(self, index):
        """Look at any slice."""
        self.shown = index
        self.position = self.slices.index(index) if index in self.slices else -1

    def point(self):
        """The point (RAS, mm) to look at, or None."""
        if self.row is None or self.row.disagreement is None or self.shown < 0:
            return None
        return self.comparison.place_of(self.row, self.plane, self.shown).tolist()

    def sentence(self):
        """What is looked at, such as "Worst slice 1 of 4: 12.0 mm, 31 mm² differ"."""
        if self.row is None:
            return ""
        if self.row.disagreement is None:
            return _("Only one of both has this structure.")
        if self.shown < 0:
            return _("A and B agree in every slice.")
        area = float(self.row.disagreement.areas_mm2[self.plane][self.shown])
        where = float(self.comparison.positions_mm(self.plane)[self.shown])
        if self.position < 0:
            return _("Slice at {where:.1f} mm: {area:.0f} mm² differ").format(
                where=where, area=area
            )
        return _("Worst {number} of {count}: {where:.1f} mm, {area:.0f} mm² differ").format(
            number=self.position + 1, count=len(self.slices), where=where, area=area
        )
