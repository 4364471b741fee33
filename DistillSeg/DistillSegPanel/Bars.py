"""Small pictures for table cells: a bar as long as a share, and a profile.

Length and height tell, not colour: they are drawn in the colour of the text of the theme.
"""

import qt

FAINT = 60  # of 255, for what a bar lacks to one
MARK = 3  # pixels


def barIcon(share, palette, width=16, height=8):
    """A bar as long as a share of one, in front of the whole."""

    def draw(painter, color):
        faint = qt.QColor(color.red(), color.green(), color.blue(), FAINT)
        painter.fillRect(0, 0, width, height, faint)
        painter.fillRect(0, 0, max(1, round(width * share)), height, color)

    return _icon(draw, palette, width, height)


def profileIcon(values, palette, width=26, height=14):
    """Values from left to right as columns from the bottom, with a mark above the largest.

    Args:
        values: none negative; each column of pixels shows the largest of those that fall on it.
    """
    values = list(values)
    largest = max(values, default=0)
    columns = [0.0] * width
    for number, value in enumerate(values):
        first = number * width // len(values)
        last = max(first + 1, (number + 1) * width // len(values))
        for column in range(first, last):
            columns[column] = max(columns[column], value)

    def draw(painter, color):
        if largest <= 0:
            return
        for column, value in enumerate(columns):
            tall = round((height - MARK - 1) * value / largest)
            painter.fillRect(column, height - max(1, tall), 1, max(1, tall), color)
        peak = columns.index(largest)
        left = min(max(0, peak - MARK // 2), width - MARK)
        painter.fillRect(left, 0, MARK, MARK - 1, color)

    return _icon(draw, palette, width, height)


def _icon(draw, palette, width, height):
    """An icon drawn twice: for rows as they are, and for chosen ones."""
    icon = qt.QIcon()
    for mode, role in (
        (qt.QIcon.Normal, qt.QPalette.Text),
        (qt.QIcon.Selected, qt.QPalette.HighlightedText),
    ):
        picture = qt.QPixmap(width, height)
        picture.fill(qt.QColor(0, 0, 0, 0))
        painter = qt.QPainter(picture)
        draw(painter, palette.color(role))
        painter.end()
        icon.addPixmap(picture, mode)
    return icon
