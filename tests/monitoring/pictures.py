"""The panels as pictures, from their own queries on what Prometheus has of a run. There is no Grafana in it: what is drawn is
what its graphs would show, so that somebody can look whether that is of use."""

import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def with_gaps(points, began):
    """Times and values; where nothing was asked or answered for a while there is no line, as in Grafana."""
    times, values = [], []
    for at, value in points:
        if times and at - began - times[-1] > 2:
            times.append(at - began)
            values.append(float("nan"))
        times.append(at - began)
        values.append(value)
    return times, values


def draw(prometheus, filled, dashboards, folder):
    """One PNG for each dashboard, its graphs in three columns."""
    os.makedirs(folder, exist_ok=True)
    for name, dashboard in dashboards:
        graphs = [panel for panel in dashboard["panels"] if panel["type"] == "timeseries"]
        rows = -(-len(graphs) // 3)
        figure, axes = plt.subplots(rows, 3, figsize=(21, 4 * rows), squeeze=False)
        for panel, ax in zip(graphs, axes.flat):
            defaults = panel["fieldConfig"]["defaults"]
            for target in panel["targets"]:
                for labels, points in prometheus.series(filled(target["expr"], 1)):
                    legend = target["legendFormat"].replace("{{instance}}", labels.get("instance", ""))
                    times, values = with_gaps(points, prometheus.began)
                    ax.plot(times, values, label=legend, linewidth=1)
            if defaults["custom"]["scaleDistribution"]["type"] == "log":
                ax.set_yscale("log")
            elif "min" in defaults:
                # What is nothing, or all the same, is not to lie on the frame.
                top = ax.get_ylim()[1]
                ax.set_ylim(-0.03 * top, 1.05 * top)
            ax.set_title(f"{panel['title']} [{defaults['unit']}]", fontsize=10)
            if ax.get_legend_handles_labels()[0]:
                ax.legend(fontsize=7)
        for ax in list(axes.flat)[len(graphs) :]:
            ax.axis("off")
        figure.tight_layout()
        figure.savefig(os.path.join(folder, name.replace(".json", ".png")), dpi=60)
        plt.close(figure)
