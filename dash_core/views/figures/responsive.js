// Panels are side by side or stacked, by the width of the figure: its layout.meta contains both forms.
function fitPanels(plot) {
  const forms = plot.layout.meta;
  const fit = () => {
    const form = plot.clientWidth < forms.narrow_below ? "narrow" : "wide";
    if (plot.clientWidth === 0 || plot.dataset.form === form) return;
    plot.dataset.form = form;
    plot.style.height = forms[form].height + "px";
    Plotly.relayout(plot, forms[form]);
  };
  new ResizeObserver(fit).observe(plot);
}
