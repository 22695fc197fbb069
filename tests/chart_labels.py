"""Where the texts of a chart stand, by Vega's own layout, to see that none lies on another."""

import itertools

import vl_convert

from vdit.render import charts

WIDE = 0.5  # of the font size, that a character of Liberation Sans takes on average


def boxes(chart, width=None):
    """(text, left, top, right, bottom) of every text that is shown, in pixels."""
    made = charts.standalone(chart)
    if width:
        made["width"] = width
    found = []

    def visit(item, x, y):
        x, y = x + item.get("x", 0), y + item.get("y", 0)
        for mark in item.get("items", ()):
            for inner in mark.get("items", ()):
                if mark["marktype"] == "group":
                    visit(inner, x, y)
                elif mark["marktype"] == "text" and inner.get("text") and inner.get("opacity", 1):
                    found.append(box(inner, x, y))

    visit(vl_convert.vegalite_to_scenegraph(made, charts.VEGA_LITE)["scenegraph"]["items"][0], 0, 0)
    return found


def box(text, x, y):
    lines = text["text"] if isinstance(text["text"], list) else [str(text["text"])]
    size = text.get("fontSize", 11)
    width, height = WIDE * size * max(map(len, lines)), size * len(lines)
    left = x + text.get("x", 0) + text.get("dx", 0)
    left -= {"center": width / 2, "right": width}.get(text.get("align", "left"), 0)
    top = y + text.get("y", 0) + text.get("dy", 0)
    top -= {"middle": size / 2, "top": 0, "line-top": 0}.get(text.get("baseline", "alphabetic"), 0.8 * size)
    return (" ".join(lines), left, top, left + width, top + height)


def overlaps(chart, width=None):
    """Pairs of texts that lie on each other."""
    return [
        (a[0], b[0])
        for a, b in itertools.combinations(boxes(chart, width), 2)
        if min(a[3], b[3]) - max(a[1], b[1]) > 1 and min(a[4], b[4]) - max(a[2], b[2]) > 1
    ]
