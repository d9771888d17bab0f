// Draws every div.cvae-figure when it comes near the view: the data lies in its attribute as JSON, Plotly is loaded once,
// colours come from the theme of the moment, and the height follows the width, so that pixels stay square.
(() => {
  "use strict";
  const config = { displayModeBar: false, responsive: false };

  const ROW_NAMES = 95; // pixels that the names of rows take of the width

  const leans = (layout, width) => {
    const names = (layout.xaxis && layout.xaxis.ticktext) || [];
    return Math.max(0, ...names.map((name) => name.length)) * 7 * names.length > width - ROW_NAMES;
  };

  const height = (layout, width) => {
    const aspect = layout.meta && layout.meta.aspect;
    if (!aspect) return layout.height;
    return Math.round((width - ROW_NAMES) * aspect + (leans(layout, width) ? 110 : 60));
  };

  // Text and lines in the page's own colours; grid lines faint.
  const themed = (layout, width) => {
    const colour = getComputedStyle(document.body).color;
    const faint = document.body.classList.contains("quarto-dark") ? "rgba(255,255,255,0.18)" : "rgba(0,0,0,0.12)";
    const result = { ...layout, width, height: height(layout, width) };
    result.font = { ...layout.font, color: colour, size: width < 500 ? 11 : 13 };
    delete result.template;
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))) {
      result[key] = { ...layout[key], gridcolor: faint, zerolinecolor: faint, color: colour };
    }
    // Names over the columns of a grid that do not fit side by side lean.
    if (leans(layout, width)) result.xaxis.tickangle = -60;
    result.annotations = (layout.annotations || []).map((note) => ({ ...note, font: { ...note.font, color: colour } }));
    return result;
  };

  const draw = (div) => {
    const { data, layout } = div.spec;
    const width = div.clientWidth;
    if (!width) return;
    div.drawnWidth = width;
    window.Plotly.react(div.plot, data, themed(layout, width), config);
  };

  const start = () => {
    const figures = [...document.querySelectorAll("div.cvae-figure")];
    if (!figures.length || !window.Plotly) return;
    const seen = new IntersectionObserver(
      (entries) => {
        for (const entry of entries.filter((e) => e.isIntersecting)) {
          seen.unobserve(entry.target);
          draw(entry.target);
          entry.target.drawn = true;
        }
      },
      { rootMargin: "600px" }
    );
    const resized = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (target.drawn && target.clientWidth !== target.drawnWidth) draw(target);
      }
    });
    for (const div of figures) {
      div.spec = JSON.parse(div.dataset.figure);
      div.plot = document.createElement("div");
      // The room a figure will take is kept free from the start, so that the text does not jump.
      div.plot.style.minHeight = `${height(div.spec.layout, div.clientWidth)}px`;
      div.append(div.plot);
      seen.observe(div);
      resized.observe(div);
    }
    const redraw = () => figures.filter((div) => div.drawn).forEach(draw);
    new MutationObserver(redraw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    const drawAll = () => figures.filter((div) => !div.drawn).forEach((div) => { draw(div); div.drawn = true; });
    window.addEventListener("beforeprint", drawAll);
  };

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
