"""The panels as pictures, from their own queries on what Prometheus has of a run. There is no Grafana in it: what is drawn is
what its graphs would show, so that somebody can look whether that is of use."""

import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


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
                    times = [at - prometheus.began for at, _ in points]
                    ax.plot(times, [value for _, value in points], label=legend, linewidth=1)
            if defaults["custom"]["scaleDistribution"]["type"] == "log":
                ax.set_yscale("log")
            elif "min" in defaults:
                ax.set_ylim(bottom=0)
            ax.set_title(f"{panel['title']} [{defaults['unit']}]", fontsize=10)
            if ax.get_legend_handles_labels()[0]:
                ax.legend(fontsize=7)
        for ax in list(axes.flat)[len(graphs) :]:
            ax.axis("off")
        figure.tight_layout()
        figure.savefig(os.path.join(folder, name.replace(".json", ".png")), dpi=60)
        plt.close(figure)
