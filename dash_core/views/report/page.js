"use strict";
// Draws the figures in the page's own colours, again when the reader's colour scheme changes, and light on paper.
// Panels are side by side or stacked, by the figure's width: layout.meta contains both forms.
(() => {
  const PAPER = 660; // px: width of a figure on A4 or Letter
  const BUTTONS = 40; // px: room at the right for plotly's buttons; the narrow form has none
  const root = document.documentElement;
  const plots = [...document.querySelectorAll(".plot")].map((place) => ({
    place,
    figure: JSON.parse(document.getElementById(place.dataset.figure).textContent),
    config: JSON.parse(place.dataset.config),
    form: null,
    width: 0,
  }));

  // The page's colours as changes of a figure's layout.
  function coloured({ figure }) {
    const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
    const changes = {
      "font.color": colour("ink"),
      "hoverlabel.bgcolor": colour("tint"),
      "hoverlabel.bordercolor": colour("line"),
      "hoverlabel.font.color": colour("ink"),
      "modebar.color": colour("soft"),
      "modebar.activecolor": colour("accent"),
    };
    for (const axis of Object.keys(figure.layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      changes[`${axis}.gridcolor`] = colour("grid");
      for (const part of ["zerolinecolor", "linecolor", "tickcolor"]) changes[`${axis}.${part}`] = colour("line");
    }
    return changes;
  }

  // The width, and the form for it if the figure has another one, as changes of the layout.
  function fitted(plot, width) {
    const { wide, narrow, narrow_below } = plot.figure.layout.meta;
    const form = width < narrow_below ? narrow : wide;
    plot.width = width;
    if (form === plot.form) return { width };
    plot.form = form;
    plot.place.style.height = `${form.height}px`;
    const above = plot.figure.layout.modebar?.orientation === "h"; // where a right axis takes the buttons' place
    return {
      ...form,
      width,
      "margin.t": above ? BUTTONS : 12,
      "margin.r": form === wide && !above ? BUTTONS : 12,
      "modebar.orientation": above ? "h" : "v",
    };
  }

  function change(layout, changes) {
    for (const [path, value] of Object.entries(changes)) {
      const keys = path.split(".");
      const last = keys.pop();
      keys.reduce((part, key) => (part[key] ??= {}), layout)[last] = value;
    }
  }

  const redraw = (plot, changes) => Plotly.relayout(plot.place, changes);

  async function draw(plot) {
    const { place, figure, config } = plot;
    change(figure.layout, { ...coloured(plot), ...fitted(plot, place.clientWidth) });
    // plotly does not adapt the width of a figure whose height is set, so it is done here
    await Plotly.newPlot(place, figure.data, figure.layout, { ...config, responsive: false });
    new ResizeObserver(() => {
      const width = place.clientWidth;
      const follows = root.dataset.printing === undefined && width > 0 && width !== plot.width;
      if (follows) redraw(plot, fitted(plot, width));
    }).observe(place);
  }

  let folded = [];

  function beforePrint() {
    root.dataset.printing = "";
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const details of folded) details.open = true;
    for (const plot of plots) redraw(plot, { ...coloured(plot), ...fitted(plot, PAPER) });
  }

  function afterPrint() {
    delete root.dataset.printing;
    for (const details of folded) details.open = false;
    for (const plot of plots) redraw(plot, { ...coloured(plot), ...fitted(plot, plot.place.clientWidth) });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of plots) redraw(plot, coloured(plot));
  });
  addEventListener("beforeprint", beforePrint);
  addEventListener("afterprint", afterPrint);

  (async () => {
    for (const plot of plots) await draw(plot);
    root.dataset.drawn = "";
  })();
})();
