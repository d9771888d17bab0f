// What keyboards, screen readers and printers need beyond what Quarto writes.
document.addEventListener("DOMContentLoaded", () => {
  "use strict";
  // What scrolls inside its own box can be reached, and then scrolled, with the keyboard.
  const boxes = document.querySelectorAll(
    "pre, math[display=block], .cell-output, figure.quarto-float-tbl > div, .table-box, .display, .output"
  );
  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  boxes.forEach((box) => sized.observe(box));

  // A callout that folds opens at a click; here also at Enter and the space bar.
  document.querySelectorAll(".callout-header[role=button]").forEach((header) => {
    header.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      header.click();
    });
  });

  // Quarto's "Show All Code" knows its own cells only; this reaches those inside figures and the package's source, too.
  for (const [id, open] of [["quarto-show-all-code", true], ["quarto-hide-all-code", false]]) {
    document.getElementById(id)?.addEventListener("click", () => {
      document.querySelectorAll("main details").forEach((fold) => { fold.open = open; });
    });
  }

  // Where the page is opened at a part of it, that is clear of the bar: Quarto sees to it only for links followed later.
  window.addEventListener("load", () => {
    const bar = document.querySelector("#quarto-header.fixed-top"), target = document.querySelector(":target");
    if (!bar || !target) return;
    const { top } = target.getBoundingClientRect();
    if (Math.abs(top) > bar.offsetHeight) return; // the reader has gone on while the page was loading
    window.scrollBy({ top: top - bar.offsetHeight - 10, behavior: "instant" });
  });

  // Where there is no room for the contents beside the text, they fold out below the title (theme.scss shows which).
  const contents = document.querySelector("#TOC > ul"), title = document.getElementById("title-block-header");
  if (contents && title) {
    const fold = document.createElement("details");
    fold.className = "contents-fold";
    const summary = document.createElement("summary");
    summary.textContent = document.getElementById("toc-title").textContent;
    fold.append(summary, contents.cloneNode(true));
    fold.querySelectorAll("[id], [class], [data-scroll-target]").forEach((element) => {
      for (const name of ["id", "class", "data-scroll-target"]) element.removeAttribute(name);
    });
    fold.addEventListener("click", (event) => { if (event.target.closest("a")) fold.open = false; });
    title.after(fold);
  }

  // Quarto's search box comes without a name.
  const name = (selector, label) => document.querySelector(selector)?.setAttribute("aria-label", label);
  name(".aa-Autocomplete", "Search");
  name(".aa-DetachedSearchButton", "Search");

  // On paper: light colours, and nothing folded. Afterwards everything is as it was, so the theme's button is not
  // pressed, which would be remembered as the reader's choice: toggleColorMode is what either builder's button calls.
  let folded = [], dark = false;
  const darken = (on) => typeof toggleColorMode === "function" && toggleColorMode(on);
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("main details:not([open])")];
    folded.forEach((fold) => { fold.open = true; });
    dark = document.body.classList.contains("quarto-dark");
    if (dark) darken(false);
  });
  window.addEventListener("afterprint", () => {
    folded.forEach((fold) => { fold.open = false; });
    if (dark) darken(true);
  });
});
