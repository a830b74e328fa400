"""How the charts look. Colours are of middle lightness on no background, for light pages and dark
ones; lines are named where they end."""

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator

INK = "#76808b"
FAINT = "#76808b40"
OURS, OTHER, THIRD, BAD = "#2f7fe0", "#8a8f98", "#d9822b", "#d64545"
KIB = 1024
# Lines of text, in points.
BETWEEN_NAMES = 14

plt.rcParams.update(
    {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "font.size": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": FAINT,
        "axes.axisbelow": True,
        "svg.hashsalt": "faas-worker",
    }
)


def number(value, _=None):
    """1500 as 1.5k: short enough for an axis."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def size(value):
    for unit, letter in ((KIB * KIB, "Mi"), (KIB, "Ki")):
        if value >= unit * 0.99:
            return f"{round(value / unit):g}{letter}"
    return f"{value:g}"


def frame(title, subtitle, x_label):
    figure, axes = plt.subplots(figsize=(7.6, 4.3))
    figure.subplots_adjust(left=0.09, right=0.80, top=0.80, bottom=0.13)
    figure.text(0.03, 0.93, title, fontsize=14, fontweight="bold")
    figure.text(0.03, 0.865, subtitle, fontsize=10.5)
    axes.set_xlabel(x_label)
    axes.tick_params(length=0)
    return figure, axes


def ticks(axes, points, show):
    """The measured points, and nothing else, on a logarithmic axis."""
    axes.set_xscale("log")
    axes.set_xticks(points, [show(point) for point in points])
    axes.xaxis.set_minor_locator(NullLocator())


def logarithmic(axes):
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(number))


def percentages(axes, highest):
    axes.set_ylim(0, highest)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))


def line(axes, points, colour, dashed=False):
    """The medians; with a band from the lowest to the highest where there are rounds."""
    x = [point["x"] for point in points]
    y = [point["median"] for point in points]
    style = {"linewidth": 2.4, "marker": "o", "markersize": 4.5}
    if dashed:
        style = {"linestyle": (0, (4, 3)), "linewidth": 1.6}
    axes.plot(x, y, color=colour, **style)
    if "low" in points[0]:
        low, high = ([point[key] for point in points] for key in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def names(axes, x, labels):
    """Names lines at their ends, moved apart where these are close: `labels` is (y, text, colour)
    for each. Comes last, when the axes have their scales."""
    places = []
    for y, text, colour in labels:
        _, pixel = axes.transData.transform((x, y))
        places.append([pixel, y, text, colour])
    places.sort()
    # In pixels of a figure of 100 to the inch, of which there are 72 points.
    scale = 72 / axes.figure.dpi
    lowest = None
    for pixel, y, text, colour in places:
        wanted = pixel if lowest is None else max(pixel, lowest + BETWEEN_NAMES / scale)
        lowest = wanted
        axes.annotate(
            text,
            (x, y),
            xytext=(8, (wanted - pixel) * scale),
            textcoords="offset points",
            color=colour,
            va="center",
            fontweight="bold",
        )
