"""Draws a plot chart with Qt alone: the lines or points of its series and its titles."""

from __future__ import annotations

from .binding import QtCore, QtGui

MARGIN = 34
CLICK_DISTANCE = 12  # pixels


def _series(chart) -> list:
    if chart is None:
        return []
    return [chart.GetNthPlotSeriesNode(i) for i in range(chart.GetNumberOfPlotSeriesNodes())]


def _values(series) -> list[tuple[float, float]]:
    """(x, y) of every row; without a column for x its index."""
    table = series.GetTableNode().GetTable() if series.GetTableNode() else None
    y = table.GetColumnByName(series.GetYColumnName()) if table else None
    if y is None:
        return []
    x = table.GetColumnByName(series.GetXColumnName() or "")
    rows = range(y.GetNumberOfTuples())
    return [
        (x.GetVariantValue(i).ToDouble() if x else float(i), y.GetVariantValue(i).ToDouble())
        for i in rows
    ]


def _points(widget, chart) -> list[tuple[object, list]]:
    """Every series with its points on the widget."""
    values = [(s, _values(s)) for s in _series(chart)]
    everything = [p for _, points in values for p in points]
    if not everything:
        return []
    x0, x1 = min(p[0] for p in everything), max(p[0] for p in everything)
    y0, y1 = min(0.0, *(p[1] for p in everything)), max(p[1] for p in everything)
    width, height = widget.width - 2 * MARGIN, widget.height - 2 * MARGIN

    def place(x, y):
        return QtCore.QPointF(
            MARGIN + width * (x - x0) / ((x1 - x0) or 1),
            MARGIN + height * (1 - (y - y0) / ((y1 - y0) or 1)),
        )

    return [(series, [place(*p) for p in points]) for series, points in values]


def draw_chart(widget, chart) -> None:
    """Paints the chart on the widget; nothing but paper where there is none."""
    painter = QtGui.QPainter(widget)
    painter.fillRect(widget.rect, QtGui.QColor("white"))
    for series, points in _points(widget, chart):
        color = QtGui.QColor.fromRgbF(*series.GetColor())
        painter.setPen(QtGui.QPen(color, 2))
        if series.GetLineStyle() != series.LineStyleNone:
            painter.drawPolyline(QtGui.QPolygonF(points))
        if series.GetMarkerStyle() != series.MarkerStyleNone:
            painter.setBrush(color)
            for point in points:
                painter.drawEllipse(point, series.GetMarkerSize() / 2, series.GetMarkerSize() / 2)
    if chart is not None:
        _draw_titles(painter, widget, chart)
    painter.end()


def _draw_titles(painter, widget, chart) -> None:
    painter.setPen(QtGui.QColor("black"))
    inner = widget.rect.adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN)
    painter.drawLine(inner.bottomLeft(), inner.bottomRight())
    painter.drawLine(inner.bottomLeft(), inner.topLeft())
    center = QtCore.Qt.AlignHCenter
    painter.drawText(widget.rect, center | QtCore.Qt.AlignTop, chart.GetTitle() or "")
    painter.drawText(widget.rect, center | QtCore.Qt.AlignBottom, chart.GetXAxisTitle() or "")
    painter.drawText(4, MARGIN - 6, chart.GetYAxisTitle() or "")


def nearest_point(widget, chart, place) -> tuple[object, int] | None:
    """(series node, row) of the point that was clicked on, or None."""
    best = None
    for series, points in _points(widget, chart):
        for index, point in enumerate(points):
            distance = (point - place).manhattanLength()
            if distance <= CLICK_DISTANCE and (best is None or distance < best[0]):
                best = (distance, series, index)
    return best[1:] if best else None
