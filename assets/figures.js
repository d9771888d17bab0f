// Draws every div.cvae-figure, those near the view first: its data lies in it as JSON, Plotly is loaded once,
// colours come from the theme of the moment, and the height follows the width, so that pixels stay square.
(() => {
  "use strict";
  const config = { displayModeBar: false, responsive: false, showAxisDragHandles: false, showTips: false };

  const character = (width) => (width < 500 ? 6 : 7); // pixels of the width that one takes in a name
  const LAST_NAME = 35; // and what the last name over the columns takes, where these lean

  const longest = (axis) => Math.max(0, ...(axis?.ticktext ?? []).flatMap((name) => name.split("<br>")).map((line) => line.length));
  const rowNames = (layout, width) => character(width) * longest(layout.yaxis) + 18;
  const leans = (layout, width) =>
    longest(layout.xaxis) * character(width) * (layout.xaxis?.ticktext?.length ?? 0) > width - rowNames(layout, width);

  const panels = (layout) => Object.keys(layout).filter((name) => /^xaxis\d*$/.test(name)).length;

  const height = (layout, width) => {
    const aspect = layout.meta && layout.meta.aspect;
    // Maps side by side are no higher than they are wide, which counts on a phone; 200 pixels are for title and legend.
    if (!aspect && layout.yaxis.scaleanchor) return Math.min(layout.height, Math.round(width / panels(layout) + 200));
    if (!aspect) return layout.height;
    const leaning = leans(layout, width);
    return Math.round((width - rowNames(layout, width) - (leaning ? LAST_NAME : 0)) * aspect + (leaning ? 110 : 60));
  };

  const textColour = () => getComputedStyle(document.body).color;

  // Text and lines in the page's own colours; grid lines faint.
  const themed = (layout, width) => {
    const colour = textColour();
    const faint = document.body.classList.contains("quarto-dark") ? "rgba(255,255,255,0.18)" : "rgba(0,0,0,0.12)";
    // A finger that starts on a figure scrolls the page: Plotly would keep it, and zoom.
    const dragmode = window.matchMedia("(pointer: coarse)").matches ? false : "zoom";
    const result = { ...layout, width, height: height(layout, width), dragmode };
    result.font = { ...layout.font, color: colour, size: width < 500 ? 11 : 13 };
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))) {
      result[key] = { ...layout[key], gridcolor: faint, zerolinecolor: faint, color: colour };
    }
    // Names of rows in two lines, which are hardly higher than a row is on a phone.
    if (width < 500 && layout.yaxis.ticktext?.some((name) => name.includes("<br>"))) result.yaxis.tickfont = { size: 10 };
    // Names over the columns of a grid that do not fit side by side lean.
    if (leans(layout, width)) {
      result.xaxis.tickangle = -60;
      result.margin = { ...layout.margin, r: LAST_NAME };
    }
    // Titles of panels, which stand side by side, are no larger on a phone than there is room for.
    result.annotations = (layout.annotations || []).map((note) => ({
      ...note, font: { ...note.font, color: colour, size: width < 500 ? 12 : note.font?.size },
    }));
    return result;
  };

  // A scatter plot would put an element on the page for every point, thousands of them. So all points of a class become
  // one shape, which is one element: a small polygon at each point, in the form its marker has.
  const ring = (corners, turn, inner = 1) =>
    Array.from({ length: corners }, (_, i) => {
      const angle = ((i + turn) / corners) * 2 * Math.PI, radius = i % 2 ? inner : 1;
      return [radius * Math.sin(angle), radius * Math.cos(angle)];
    });
  const plus = [
    [-1, 3], [1, 3], [1, 1], [3, 1], [3, -1], [1, -1], [1, -3], [-1, -3], [-1, -1], [-3, -1], [-3, 1], [-1, 1],
  ];
  const forms = {
    circle: ring(8, 0), square: ring(4, 0.5), diamond: ring(4, 0), cross: plus.map(([x, y]) => [x / 2.6, y / 2.6]),
    x: plus.map(([x, y]) => [(x + y) / 3.7, (x - y) / 3.7]), "triangle-up": ring(3, 0), "triangle-down": ring(3, 1.5),
    star: ring(10, 0, 0.45), pentagon: ring(5, 0), hexagram: ring(12, 0, 0.58),
  };

  // Coordinates of a byte each, as plotly.py packs them, mark a map; a few dots with real coordinates stay dots.
  const asBytes = ([{ x }]) => x?.dtype === "i1";
  const numbers = ({ bdata }) => Int8Array.from(atob(bdata), (byte) => byte.charCodeAt(0));

  const drawnAsShapes = (traces, layout, width) => {
    if (!asBytes(traces)) return { traces, shapes: layout.shapes };
    const points = traces.map(({ x, y }) => [numbers(x), numbers(y)]);
    const span = Math.max(...points.flat().map((values) => Math.max(...values) - Math.min(...values)));
    const room = Math.min(width / panels(layout), 400); // pixels that a map is wide
    const radius = (span / room) * Math.min(3, room / 90); // three pixels, fewer where the map is small
    const place = (value, shift) => (value + shift * radius).toFixed(2);
    const polygon = (x, y, symbol) =>
      `M${forms[symbol].map(([dx, dy]) => `${place(x, dx)},${place(y, dy)}`).join("L")}Z`;
    return {
      // The points answer to the pointer, unseen; the legend shows a marker, which stands for them all.
      traces: [
        ...traces.map((trace, i) => ({
          ...trace, x: points[i][0], y: points[i][1], mode: "none", showlegend: false,
          hoverlabel: { bgcolor: trace.marker.color },
        })),
        ...traces.filter((trace) => trace.showlegend).map((trace) => ({ ...trace, x: [null], y: [null] })),
      ],
      shapes: traces.map(({ marker, xaxis, yaxis }, i) => ({
        type: "path", xref: xaxis, yref: yaxis, fillcolor: marker.color, fillrule: "nonzero",
        line: { width: 0 },
        path: Array.from(points[i][0], (x, point) => polygon(x, points[i][1][point], marker.symbol)).join(""),
      })),
    };
  };

  // A click in the legend hides traces; the shapes, which come in the same order, go with them.
  const hideWithTraces = ({ plot, spec }) => () => {
    const shapes = (asBytes(spec.data) && plot.layout.shapes) || [];
    const changes = shapes.map((_, i) => [`shapes[${i}].visible`, plot.data[i].visible !== "legendonly"]);
    if (changes.length) window.Plotly.relayout(plot, Object.fromEntries(changes));
  };

  // Plotly lays out a place for all that any figure may show, and finds or makes it again when it redraws. What stays
  // empty is a sixth of the page's elements; only what the pointer brings up must have its place.
  const unused = (plot) => [
    ...plot.querySelectorAll("g:empty:not(.hoverlayer, .zoomlayer, .selectionlayer, .draglayer *)"),
    ...[...plot.querySelectorAll(".axesclip")].filter(({ id }) => !plot.querySelector(`[clip-path$="#${id})"]`)),
  ];
  const tidy = (plot) => {
    for (let found; (found = unused(plot)).length; ) found.forEach((element) => element.remove()); // groups in groups
  };

  const draw = (div) => {
    const { data, layout } = div.spec;
    const width = div.clientWidth;
    if (!width) return;
    div.drawnWidth = width;
    div.drawn = true;
    const { traces, shapes } = drawnAsShapes(data, layout, width);
    window.Plotly.react(div.plot, traces, { ...themed(layout, width), shapes }, config).then(tidy);
    div.plot.style.minHeight = ""; // its height is its own now, and less where the page becomes narrower
    if (!div.answers) div.plot.on("plotly_restyle", hideWithTraces(div));
    div.answers = true;
  };

  const start = () => {
    const figures = [...document.querySelectorAll("div.cvae-figure")];
    if (!window.Plotly) return;
    const seen = new IntersectionObserver(
      (entries) => {
        for (const entry of entries.filter((e) => e.isIntersecting)) {
          seen.unobserve(entry.target);
          if (!entry.target.drawn) draw(entry.target);
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
      div.spec = JSON.parse(div.querySelector("script").textContent);
      div.plot = document.createElement("div");
      // The room a figure will take is kept free from the start, so that the text does not jump.
      div.plot.style.minHeight = `${height(div.spec.layout, div.clientWidth)}px`;
      div.append(div.plot);
      seen.observe(div);
      resized.observe(div);
    }
    // Only a change of colour is a reason to draw all anew, and to undo what the reader zoomed: the class changes too when
    // the search or a dialog opens, and a theme's sheet may arrive after the theme's name.
    let drawnIn = textColour();
    const recolour = () => {
      if (textColour() === drawnIn) return;
      drawnIn = textColour();
      figures.filter((div) => div.drawn).forEach(draw);
    };
    new MutationObserver(recolour).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    document.addEventListener("load", recolour, true);

    // The others follow when the browser has nothing else to do: what is first drawn for printing comes too late.
    const idle = window.requestIdleCallback || ((task) => setTimeout(task, 200));
    const drawNext = () => {
      const next = figures.find((div) => !div.drawn && div.clientWidth);
      if (!next) return;
      draw(next);
      idle(drawNext);
    };
    window.addEventListener("load", () => idle(drawNext));
    window.addEventListener("beforeprint", () => figures.filter((div) => !div.drawn).forEach(draw));
  };

  start();
})();
