"""Keys of a comparison: which view is seen alone, which slice, and blinking.

They are on only while its views are shown. Digits and Space belong to the Segment Editor while it
listens, for it knows them too, and Qt serves neither of two that ask for one key.
"""

import qt

from DistillSegPanel import CompareLayout as Layout

ALONE = {"1": Layout.A, "2": Layout.B, "3": Layout.MAP}
SHARED = (*ALONE, "Space")  # with the Segment Editor


class CompareKeys:
    """Calls what the keys mean.

    Args:
        parent: the panel's widget, with which they are on and off.
        onStep: called with 1 or -1; onBlink: called without arguments.
    """

    def __init__(self, parent, onStep, onBlink):
        self._parent, self._onBlink = parent, onBlink
        calls = {key: lambda name=name: Layout.alone(name) for key, name in ALONE.items()}
        calls.update(N=lambda: onStep(1), P=lambda: onStep(-1), Space=self.onSpace)
        self._calls, self._keys = calls, {}

    def update(self, isOn, isEditing):
        """Turn them on or off.

        Args:
            isOn: whether the views are shown and the module is.
            isEditing: whether the Segment Editor listens to keys.
        """
        wanted = {key for key in self._calls if isOn and not (isEditing and key in SHARED)}
        for key in wanted - set(self._keys):
            self._keys[key] = qt.QShortcut(qt.QKeySequence(key), self._parent)
            self._keys[key].connect("activated()", self._calls[key])
        for key in set(self._keys) - wanted:
            shortcut = self._keys.pop(key)
            shortcut.disconnect("activated()", self._calls[key])
            shortcut.setEnabled(False)
            shortcut.deleteLater()

    @property
    def keys(self):
        """Those that are on."""
        return set(self._keys)

    def onSpace(self):
        """Blink; but a button that was reached by the keyboard is pressed by Space, as ever."""
        focused = qt.QApplication.focusWidget()
        isOurs = focused is not None and self._parent.isAncestorOf(focused)
        if isOurs and focused.inherits("QAbstractButton"):
            focused.click()
        else:
            self._onBlink()
