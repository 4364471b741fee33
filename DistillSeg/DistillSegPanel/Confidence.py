"""How sure a model was of each structure, kept with its segment and so with a saved scene.

Main thread only.
"""

import vtk

CONFIDENCE = "DistillSeg.Confidence"  # tag of a segment: "0.934"


def keep(segment, confidence):
    """Write it to a segment; None where it is unknown.

    Args:
        confidence: mean, over the voxels that the model gave to the structure, of the highest
            probability of its classes: 0 to 1.
    """
    if confidence is not None:
        segment.SetTag(CONFIDENCE, f"{confidence:.4f}")
    elif segment.HasTag(CONFIDENCE):
        segment.RemoveTag(CONFIDENCE)


def confidenceOf(segment):
    """0 to 1, or None where it is unknown."""
    value = vtk.reference("")
    if not segment.GetTag(CONFIDENCE, value):
        return None
    try:
        found = float(str(value))
    except ValueError:  # somebody else's
        return None
    return found if 0 <= found <= 1 else None
