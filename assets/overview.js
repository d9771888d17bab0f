// The overview figure: puts ten radio buttons, a row of samples and a button in the place of the static grid, whose rows
// name the classes. The samples lie in one picture, a row for each class; what is shown is only a matter of position.
(() => {
  "use strict";
  const COLUMNS = 24; // samples of a class in the sprite, as in tools/overview_sprite.py
  const SHOWN = 8;
  const FIRST = "Ankle boot"; // the class of the diagram above it

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const start = (figure) => {
    const grid = figure.querySelector(".overview-static");
    const names = [...grid.querySelectorAll("li > span")].map((span) => span.textContent);
    let chosen = Math.max(0, names.indexOf(FIRST));
    let from = 0;

    const cells = Array.from({ length: SHOWN }, () => make("div", { className: "overview-sample" }));
    const samples = make("div", { className: "overview-samples" }, ...cells);
    samples.setAttribute("role", "img");
    const said = make("p");
    said.setAttribute("aria-live", "polite");

    const show = () => {
      cells.forEach((cell, i) => {
        const [x, y] = [(from + i) / (COLUMNS - 1), chosen / (names.length - 1)];
        cell.style.backgroundPosition = `${100 * x}% ${100 * y}%`;
      });
      samples.setAttribute("aria-label", `${SHOWN} generated images of the class ${names[chosen]}`);
      said.textContent = `${names[chosen]}: samples ${from + 1} to ${from + SHOWN} of ${COLUMNS}.`;
    };

    const choices = names.map((name, row) => {
      const input = make("input", { type: "radio", name: "overview-class", value: row, checked: row === chosen });
      input.addEventListener("change", () => { chosen = row; show(); });
      const words = make("span", { textContent: name });
      words.dataset.name = name; // for its style
      return make("label", {}, input, words);
    });
    const others = make("button", { type: "button", textContent: "Show others" });
    others.addEventListener("click", () => { from = (from + SHOWN) % COLUMNS; show(); });

    const legend = make("legend", { textContent: "Pick a class" });
    const box = make("div", { className: "overview-choices" }, ...choices);
    grid.replaceWith(
      make("fieldset", {}, legend, box), samples, make("div", { className: "overview-below" }, others, said));
    show();
  };

  document.querySelectorAll(".overview").forEach(start);
})();
