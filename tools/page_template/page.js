// The theme follows the system until the reader chooses. The class on <body> is set before anything is painted.
(() => {
  "use strict";
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("cvae-theme"); } catch { return null; } };
  const isDark = () => (stored() ? stored() === "dark" : system.matches);
  const apply = () => {
    const dark = isDark();
    document.body.classList.toggle("quarto-dark", dark);
    document.body.classList.toggle("quarto-light", !dark);
    const button = document.getElementById("theme-toggle");
    if (button) button.textContent = dark ? "Light theme" : "Dark theme";
  };
  apply();
  system.addEventListener("change", apply);

  document.addEventListener("DOMContentLoaded", () => {
    const theme = document.getElementById("theme-toggle");
    theme.hidden = false;
    apply();
    const toggle = () => {
      try { localStorage.setItem("cvae-theme", isDark() ? "light" : "dark"); } catch { /* private window */ }
      apply();
    };
    theme.addEventListener("click", toggle);
    window.quartoToggleColorScheme = toggle; // the name it has on Quarto's pages, for assets/page.js

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
        await navigator.clipboard.writeText(block.querySelector("pre").textContent);
        copy.textContent = "Copied";
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
