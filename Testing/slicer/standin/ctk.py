"""CTK's containers, buttons and texts."""

from __future__ import annotations

from .binding import QtCore, QtGui, QtWidgets
from .cpp import cpp, stored

HEADER_HEIGHT = 26
UNLIMITED = 16777215  # QWIDGETSIZE_MAX
COLLAPSED_LINES = 4


@cpp
class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header that shows or hides what lies in its layout."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, *arguments):
        title = next((a for a in arguments if isinstance(a, str)), "")
        parent = next((a for a in arguments if not isinstance(a, str)), None)
        QtWidgets.QAbstractButton.__init__(self, parent)
        self.text = title
        self.checkable = True
        self.checked = True
        self.setContentsMargins(0, HEADER_HEIGHT, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Preferred)
        self.toggled.connect(self._s_show)

    def _s_show(self, expanded):
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(expanded)
        self.maximumHeight = UNLIMITED if expanded else HEADER_HEIGHT
        self.minimumHeight = 0 if expanded else HEADER_HEIGHT
        self.contentsCollapsed.emit(not expanded)
        self.updateGeometry()

    def childEvent(self, event):
        """What is added while collapsed stays hidden."""
        child = event.child()
        if event.added() and not self.checked and isinstance(child, QtWidgets.QWidget):
            child.setVisible(False)

    def _s_set_collapsed(self, collapsed):
        self.checked = not collapsed

    collapsed = QtCore.Property(bool, lambda self: not self.checked, _s_set_collapsed)
    collapsedHeight = stored(int, "collapsedHeight", 10)
    flat = stored(bool, "flat", False)

    def hitButton(self, position):
        return position.y() <= HEADER_HEIGHT

    def sizeHint(self):
        inner = self.layout()
        return inner.sizeHint() if inner and self.checked else QtCore.QSize(120, HEADER_HEIGHT)

    def minimumSizeHint(self):
        inner = self.layout()
        return inner.minimumSize() if inner and self.checked else QtCore.QSize(60, HEADER_HEIGHT)

    def paintEvent(self, event):
        painter = QtGui.QPainter(self)
        palette, middle = self.palette, HEADER_HEIGHT / 2 - 1
        header = QtCore.QRect(0, 0, self.width, HEADER_HEIGHT - 2)
        painter.fillRect(header, palette.color(QtGui.QPalette.Button).darker(106))
        color = palette.color(QtGui.QPalette.ButtonText)
        painter.setPen(color)
        painter.setBrush(color)
        corners = ((8, middle - 3), (18, middle - 3), (13, middle + 4))
        if not self.checked:
            corners = ((10, middle - 5), (10, middle + 5), (16, middle))
        painter.drawPolygon(QtGui.QPolygonF([QtCore.QPointF(*c) for c in corners]))
        header.setLeft(26)
        painter.drawText(header, QtCore.Qt.AlignVCenter | QtCore.Qt.AlignLeft, self.text)
        painter.end()


@cpp
class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box whose check mark folds it."""

    collapsed = stored(bool, "collapsed", False)


@cpp
class ctkMenuButton(QtWidgets.QPushButton):
    """A button with a second part that opens a menu."""


@cpp
class ctkPushButton(QtWidgets.QPushButton):
    """A push button whose icon can stand elsewhere."""


@cpp
class ctkFittedTextBrowser(QtWidgets.QTextBrowser):
    """A text as high as what it shows; a long one is cut to its first part with a link to more."""

    def __init__(self, parent=None):
        QtWidgets.QTextBrowser.__init__(self, parent)
        self._s_whole = ""
        self._s_plain = False
        self.verticalScrollBarPolicy = QtCore.Qt.ScrollBarAlwaysOff
        self.openLinks = False
        self.anchorClicked.connect(self._s_toggle)
        self.textChanged.connect(self.updateGeometry)

    def _s_show(self):
        if not self._s_whole:
            return
        teaser, _, rest = self._s_whole.partition("<!-- more -->" if not self._s_plain else "\n")
        text = teaser if self.collapsed else self._s_whole
        link = self.showDetailsText if self.collapsed else self.hideDetailsText
        if self._s_plain:
            text = text.replace("\n", "<br>")
        self.setHtml(text + (f' <a href="#">{link}</a>' if rest else ""))

    def _s_toggle(self, url):
        if url.toString() == "#":
            self.collapsed = not self.collapsed

    collapsed = stored(bool, "collapsed", True, _s_show)
    showDetailsText = stored(str, "showDetailsText", "Show details...", _s_show)
    hideDetailsText = stored(str, "hideDetailsText", "Hide details.", _s_show)

    def setCollapsibleText(self, text):
        """The whole text; the first line (or all up to `<!-- more -->` in HTML) stays visible."""
        self._s_whole, self._s_plain = text, "<" not in text
        self._s_show()

    setCollapsibleHtml = setCollapsiblePlainText = setCollapsibleText

    def collapsibleText(self):
        return self._s_whole

    def _s_height(self):
        document = QtGui.QTextDocument()
        document.setHtml(self.html)
        document.setTextWidth(max(self.width - 8, 80))
        return int(document.size.height()) + 8

    def sizeHint(self):
        return QtCore.QSize(200, self._s_height())

    minimumSizeHint = sizeHint

    def resizeEvent(self, event):
        QtWidgets.QTextBrowser.resizeEvent(self, event)
        self.updateGeometry()


@cpp
class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box with a check mark "don't show again"."""
