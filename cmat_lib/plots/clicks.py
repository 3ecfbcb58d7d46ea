"""A click in the explorer of page 06 moves its slider to the nearest moment.

Plotly knows no such thing by itself, so a page carries a few lines of script beside the figure. They wait for the mouse
to come over a figure whose layout names moments; when and by whom that was drawn does not matter. JupyterLab runs the
scripts of cells that were executed in the session and of trusted notebooks; elsewhere the slider is left.
"""

from IPython.display import HTML

# With `clickanywhere`, `xvals` says where the click was, on a line or beside it; `d2c` makes milliseconds of a time.
CLICK_SCRIPT = """
document.addEventListener("mouseover", hover => {
  const plot = hover.target.closest?.(".js-plotly-plot");
  if (!plot?.layout?.meta?.moments || plot.cmatClick) return;
  plot.cmatClick = true;
  plot.on("plotly_click", ({xaxes: [axis], xvals: [x]}) => {
    if (axis.type !== "date") return;
    const {meta: {moments}, sliders: [slider]} = plot.layout;
    const away = moments.map(moment => Math.abs(axis.d2c(moment) - axis.d2c(x)));
    const nearest = away.indexOf(Math.min(...away));
    window.Plotly.animate(plot, ...slider.steps[nearest].args);
  });
});
"""


def click_script() -> HTML:
    """The script, to be displayed once on a page, before or after the figures."""
    return HTML(f"<script>{CLICK_SCRIPT}</script>")
