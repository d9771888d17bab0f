// The theme follows the system until the reader chooses. The class on <body> is set before anything is painted.
(() => {
  "use strict";
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null; // "light" or "dark", in this tab, also where nothing can be stored
  try { chosen = localStorage.getItem("cvae-theme"); } catch { /* private window */ }
  const isDark = () => (chosen ? chosen === "dark" : system.matches);
  const show = (dark) => {
    document.body.classList.toggle("quarto-dark", dark);
    document.body.classList.toggle("quarto-light", !dark);
    const button = document.getElementById("theme-toggle");
    if (button) button.textContent = dark ? "Light theme" : "Dark theme";
  };
  const apply = () => show(isDark());
  apply();
  system.addEventListener("change", apply);
  window.toggleColorMode = show; // the name it has on Quarto's pages, for assets/page.js

  document.addEventListener("DOMContentLoaded", () => {
    const theme = document.getElementById("theme-toggle");
    theme.hidden = false;
    apply();
    theme.addEventListener("click", () => {
      chosen = isDark() ? "light" : "dark";
      try { localStorage.setItem("cvae-theme", chosen); } catch { /* private window */ }
      apply();
    });

    const folds = [...document.querySelectorAll("details.code, .output details")];
    const all = document.getElementById("code-toggle");
    if (all && folds.length) {
      all.hidden = false;
      const label = () => { all.textContent = folds.every((fold) => fold.open) ? "Hide all code" : "Show all code"; };
      all.addEventListener("click", () => {
        const open = !folds.every((fold) => fold.open);
        for (const fold of folds) fold.open = open;
        label();
      });
      for (const fold of folds) fold.addEventListener("toggle", label);
    }

    for (const block of document.querySelectorAll(".highlight")) {
      if (!navigator.clipboard) break;
      const copy = document.createElement("button");
      copy.className = "copy";
      copy.textContent = "Copy";
      copy.addEventListener("click", async () => {
        const text = block.querySelector("pre").textContent;
        copy.textContent = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Not allowed");
        setTimeout(() => { copy.textContent = "Copy"; }, 1500);
      });
      block.append(copy);
    }

    // Beside the text there is room for the table of contents; above it, it stays folded.
    const contents = document.querySelector(".toc details");
    const wide = window.matchMedia("(min-width: 68rem)");
    const place = () => { if (contents) contents.open = wide.matches; };
    place();
    wide.addEventListener("change", place);
  });
})();
