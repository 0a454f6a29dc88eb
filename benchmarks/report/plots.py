"""Draws the charts of a saved section as SVG files. Runs in the peers' environment, which has matplotlib.

python -m benchmarks.report.plots <section.json> <folder>
"""

import json
import math
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

OURS: Final = "#0b7285"
OTHERS: Final = "#b4bcc4"


def draw(chart: dict[str, Any], path: Path) -> None:
    """Draw one bar chart: groups on the left, a bar for each name in a group."""
    groups: dict[str, dict[str, float]] = chart["groups"]
    compared = any(name.startswith("Jobtape") for bars in groups.values() for name in bars)
    many = len(groups) > 1
    rows = sum(len(bars) for bars in groups.values()) + (len(groups) if many else 0)
    figure = Figure(figsize=(7.2, 0.7 + 0.27 * rows), layout="constrained")
    axes = figure.subplots()
    y, ticks, labels = 0.0, [], []
    for group, bars in groups.items():
        if many:
            ticks.append(y)
            labels.append(group)
            y += 1
        for name, value in bars.items():
            ours = name.startswith("Jobtape") if compared else not name.startswith("bound")
            axes.barh(y, value, height=0.8, color=OURS if ours else OTHERS)
            axes.annotate(f" {value:,.3g}" if value < 100 else f" {value:,.0f}", (value, y), va="center", fontsize=8)
            ticks.append(y)
            labels.append(f"{name}")
            y += 1
    axes.set_yticks(ticks, labels, fontsize=8)
    if many:
        for label in axes.get_yticklabels():
            if label.get_text() in groups:
                label.set_fontweight("bold")
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(chart["unit"], fontsize=8)
    axes.margins(x=0.12)
    if chart["logarithmic"]:
        axes.set_xscale("log", nonpositive="clip")
        # A whole power of ten on the left, so that the lengths of bars can be compared between runs.
        lowest = min(value for bars in groups.values() for value in bars.values())
        axes.set_xlim(left=10 ** math.floor(math.log10(lowest)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(chart["title"], fontsize=10, loc="left", pad=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    # The date would change the file with every run.
    figure.savefig(path, metadata={"Date": None, "Creator": None}, facecolor="white")


def main() -> None:
    """Draw all charts of a section."""
    # Text stays text: smaller files that can be searched; equal input gives an equal file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "jobtape", "font.family": "sans-serif"})
    for chart in json.loads(Path(sys.argv[1]).read_text())["charts"]:
        draw(chart, Path(sys.argv[2]) / f"{chart['name']}.svg")


if __name__ == "__main__":
    main()
