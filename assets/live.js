// The decoders of the page, live in the reader's browser: class, blend of classes, latent, and what the judge reads.
//
// One module and a worker, no framework and none of Quarto's own cells: so it works on Quarto's page and on the one that is
// built without it, and nothing is loaded (0.9 MB of models, 14 MB of onnxruntime-web, all from this site) nor built
// before the reader presses the button. Until then, and whenever something fails, a picture drawn beforehand stands here.
// Everything shown is a function of one small state, which also stands in the page's address.

const folder = new URL("live/", import.meta.url);
const SIDE = 28, LATENTS = 49, SLIDERS = 6, REACH = 3; // of a slider, in standard deviations of the prior
const NAMES = { adaln: "adaLN", spatial: "spatial" };
const FIRST = { model: "adaln", from: 7, to: 9, share: 0, seed: 0 };

const make = (tag, properties = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
};

// ---------------------------------------------------------------------------------------------------------- the state

// z from N(0, I), the same for a seed everywhere: mulberry32, then Box and Muller. Seed 0 is the z of the page's blends.
const noise = (seed, first) => {
  if (seed === 0) return Float32Array.from(first);
  let a = seed >>> 0;
  const uniform = () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  return Float32Array.from({ length: LATENTS }, () =>
    Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
};

const toQuery = ({ model, from, to, share, seed, garment, edits }) => {
  const query = new URLSearchParams({ live: model, from, to, share });
  if (garment === null) query.set("seed", seed);
  else query.set("garment", garment);
  for (const [latent, value] of Object.entries(edits)) query.set(`z${latent}`, value);
  return query;
};

// What an address says, as far as it makes sense.
const fromQuery = (query, garments) => {
  const whole = (name, below, otherwise) => {
    const text = query.get(name);
    return /^\d{1,9}$/.test(text ?? "") && Number(text) < below ? Number(text) : otherwise;
  };
  const edits = {};
  for (let latent = 0; latent < LATENTS; latent++) {
    const value = Number.parseFloat(query.get(`z${latent}`));
    if (Math.abs(value) <= REACH) edits[latent] = value;
  }
  return {
    model: Object.hasOwn(NAMES, query.get("live")) ? query.get("live") : FIRST.model,
    from: whole("from", 10, FIRST.from), to: whole("to", 10, FIRST.to), share: whole("share", 101, FIRST.share),
    seed: whole("seed", 1e9, FIRST.seed), garment: whole("garment", garments, null), edits,
  };
};

// --------------------------------------------------------------------------------------------------------- the pictures

const paint = (canvas, pixels) => {
  const picture = new ImageData(SIDE, SIDE), words = new Uint32Array(picture.data.buffer); // a word a pixel: red, green, blue, 255
  pixels.forEach((value, i) => { words[i] = 0xff000000 + 0x010101 * Math.round(value * 255); });
  canvas.getContext("2d").putImageData(picture, 0, 0);
};

const image = (properties = {}) => make("canvas", { width: SIDE, height: SIDE, ...properties });

const place = (latent) => `row ${Math.floor(latent / 7) + 1}, column ${(latent % 7) + 1}`;

// z as a map of squares, as large as the number is: full where it is positive, hollow where it is negative.
// The colours are those of an element that stands in the page: the canvas may not do so yet.
const paintMap = (canvas, colours, z, sliders, current) => {
  const pen = canvas.getContext("2d"), cell = canvas.width / 7;
  const colour = (name) => colours.getPropertyValue(name);
  pen.clearRect(0, 0, canvas.width, canvas.width);
  z.forEach((value, latent) => {
    const [x, y] = [(latent % 7) * cell, Math.floor(latent / 7) * cell];
    const size = Math.max(2, Math.sqrt(Math.min(1, Math.abs(value) / REACH)) * (cell - 8)); // the area counts
    if (sliders.includes(latent)) {
      pen.fillStyle = colour("--z");
      pen.fillRect(x + 1, y + 1, cell - 2, cell - 2);
    }
    pen.strokeStyle = pen.fillStyle = colour("--z-line");
    pen.lineWidth = 2;
    const corner = (cell - size) / 2;
    if (value > 0) pen.fillRect(x + corner, y + corner, size, size);
    else pen.strokeRect(x + corner + 1, y + corner + 1, Math.max(1, size - 2), Math.max(1, size - 2));
    if (latent !== current) return;
    pen.strokeStyle = colour("--text");
    pen.lineWidth = 4;
    pen.strokeRect(x + 2, y + 2, cell - 4, cell - 4);
  });
};

const percent = (value) => `${Math.round(100 * value)}\u00a0%`;
const best = (probabilities) => probabilities.indexOf(Math.max(...probabilities));

// ------------------------------------------------------------------------------------------------------------- the panel

const explore = (root, facts, worker, state) => {
  const { classes, decoders, garments } = facts;
  const tables = Object.fromEntries(
    Object.entries(decoders).map(([name, { embeddings }]) => [name, embeddings.map((row) => Float32Array.from(row))]));
  let seen = null; // probabilities of the picture
  let current = null; // the latent whose slider has the focus

  const latent = (model) => {
    const z = state.garment === null ? noise(state.seed, facts.z) : Float32Array.from(garments[state.garment].mu[model]);
    for (const [i, value] of Object.entries(state.edits)) z[i] = value;
    return z;
  };
  const blended = () => {
    const [a, b, share] = [tables[state.model][state.from], tables[state.model][state.to], state.share / 100];
    return a.map((value, i) => (1 - share) * value + share * b[i]);
  };
  const sliders = () => decoders[state.model].active.slice(0, SLIDERS);

  // ---- what is asked of the worker: the picture first, then the two rows; never an older state than the newest
  const wanted = new Set();
  let busy = false, sent = 0;
  const live = { state, frame: 0, milliseconds: 0, get idle() { return !busy && !wanted.size; },
    get z() { return live.codes(state.model); }, codes: (model) => Array.from(latent(model)),
    get probabilities() { return seen; } };
  root.live = live; // for the tests, and for the curious

  const next = () => {
    const job = ["picture", "adaln", "spatial"].find((name) => wanted.has(name));
    if (busy || !job) return;
    wanted.delete(job);
    busy = true;
    sent = performance.now();
    if (job === "picture") {
      worker.postMessage({ job, model: state.model, z: latent(state.model), cond: blended(), count: 1 });
      return;
    }
    const z = latent(job), width = tables[job][0].length;
    const all = new Float32Array(LATENTS * classes.length), cond = new Float32Array(width * classes.length);
    classes.forEach((_, i) => { all.set(z, i * LATENTS); cond.set(tables[job][i], i * width); });
    worker.postMessage({ job, model: job, z: all, cond, count: classes.length });
  };
  const ask = (...jobs) => { jobs.forEach((job) => wanted.add(job)); next(); };

  // ---- picture and judge
  const picture = image({ className: "live-large", role: "img" });
  const caption = make("span");
  const original = image({ role: "img", hidden: true });
  const bars = classes.map((name) => {
    const bar = make("i"), number = make("b");
    return { row: make("li", {}, make("span", { textContent: name }), make("span", { "aria-hidden": "true" }, bar), number), bar, number };
  });
  const judge = make("div", { className: "live-judge" }, make("p", { textContent: "The judge reads" }), make("ul", {}, ...bars.map(({ row }) => row)));

  // ---- what: the class
  const share = make("input", { type: "range", min: 0, max: 100, step: 1, id: "live-share" });
  const from = make("select", { "aria-label": "Blend from" }, ...classes.map((name, i) => make("option", { value: i, textContent: name })));
  const to = make("select", { "aria-label": "Blend to" }, ...classes.map((name, i) => make("option", { value: i, textContent: name })));
  const mixed = make("output", { htmlFor: "live-share" });
  const what = make("fieldset", { className: "live-what" }, make("legend", { textContent: "What: the class" }),
    make("div", { className: "live-blend" }, from,
      make("label", { htmlFor: "live-share", className: "live-share" }, make("span", { textContent: "Blend " }, mixed), share), to));

  // ---- how: z
  const map = make("canvas", { width: 280, height: 280, role: "img" });
  const tracks = Array.from({ length: SLIDERS }, () => {
    const input = make("input", { type: "range", min: -REACH, max: REACH, step: 0.1 });
    const name = make("span"), number = make("output");
    return { label: make("label", {}, name, number, input), input, name, number };
  });
  const shuffle = make("button", { type: "button", textContent: "Shuffle z" });
  const undo = make("button", { type: "button", textContent: "Undo the sliders" });
  const how = make("fieldset", {}, make("legend", { textContent: "How: the latent z" }),
    make("div", { className: "live-how" }, map, make("div", { className: "live-tracks" }, ...tracks.map(({ label }) => label))),
    make("div", { className: "live-buttons" }, shuffle, undo));

  // ---- z of a test garment
  const choice = (name, value, label, ...children) => {
    const input = make("input", { type: "radio", name, value, "aria-label": label });
    return { input, label: make("label", {}, input, make("span", {}, ...children)) };
  };
  const sources = garments.map(({ label, pixels }, i) => {
    const canvas = image();
    paint(canvas, Array.from(atob(pixels), (byte) => byte.charCodeAt(0) / 255));
    return choice("live-garment", i, classes[label], canvas);
  });
  const ten = classes.length; // one of each class at a time
  let shelf = Math.floor((state.garment ?? 0) / ten);
  const fill = () => sources.forEach(({ label }, i) => { label.hidden = Math.floor(i / ten) !== shelf; });
  fill();
  const others = make("button", { type: "button", textContent: "Ten other garments" });
  const given = make("fieldset", { className: "live-garments" },
    make("legend", { textContent: "Or take the z of a test garment" }),
    make("div", { className: "live-row" }, ...sources.map(({ label }) => label)),
    make("div", { className: "live-buttons" }, others));

  // ---- all ten classes, and the class by picture
  const rows = Object.fromEntries(Object.keys(NAMES).map((model) => [model, classes.map((name, i) => {
    const canvas = image(), verdict = make("small");
    const made = choice("live-pick", `${model}-${i}`, "", canvas, make("em", { textContent: name }), verdict);
    made.input.addEventListener("change", () => change({ model, from: i, share: 0 }));
    return { ...made, canvas, verdict };
  })]));
  const every = make("fieldset", { className: "live-every" }, make("legend", { textContent: "Every class from this z: pick one" }),
    make("p", { textContent: "✓ where the judge reads the class that was asked for, else what it reads." }),
    ...Object.entries(NAMES).flatMap(([model, name]) => [
      make("p", { className: "live-model", textContent: `${name} model` }),
      make("div", { className: "live-row", role: "group", "aria-label": `${name} model` }, ...rows[model].map(({ label }) => label))]));

  const copy = make("button", { type: "button", textContent: "Copy a link to this picture" });
  const said = make("p", { className: "live-said", role: "status" });

  // ---- from the state to what is shown
  const words = () => {
    const [a, b] = [classes[state.from], classes[state.to]];
    if (state.share === 0 || state.from === state.to) return a;
    return state.share === 100 ? b : `${percent(1 - state.share / 100)} ${a} + ${percent(state.share / 100)} ${b}`;
  };
  const story = () => (state.garment === null
    ? words() : `${classes[garments[state.garment].label]}, encoded and redrawn as ${words()}`);

  const show = () => {
    caption.textContent = `${NAMES[state.model]}: ${story()}`;
    picture.setAttribute("aria-label", `Drawn by the ${NAMES[state.model]} model: ${story()}`);
    [from.value, to.value, share.value] = [state.from, state.to, state.share];
    mixed.textContent = percent(state.share / 100);
    share.setAttribute("aria-valuetext", words());
    const z = latent(state.model);
    sliders().forEach((i, track) => {
      const { input, name, number } = tracks[track];
      name.textContent = place(i);
      number.textContent = z[i].toFixed(1).replace("-", "−");
      input.value = z[i];
      input.setAttribute("aria-label", `z at ${place(i)}`);
    });
    paintMap(map, getComputedStyle(root), z, sliders(), current);
    map.setAttribute("aria-label", "The 49 numbers of z as a map of squares; the shaded ones have sliders");
    undo.disabled = !Object.keys(state.edits).length;
    original.hidden = state.garment === null;
    if (state.garment !== null) {
      original.getContext("2d").drawImage(sources[state.garment].label.querySelector("canvas"), 0, 0);
      original.setAttribute("aria-label", `The test garment: ${classes[garments[state.garment].label]}`);
    }
    sources.forEach(({ input }, i) => { input.checked = i === state.garment; });
    for (const model of Object.keys(NAMES)) {
      rows[model].forEach(({ input }, i) => { input.checked = model === state.model && i === state.from; });
    }
  };

  let written, announced;
  const change = (changes, ...jobs) => {
    // A blend of a class with itself says nothing: the other end becomes what this one was.
    if (changes.from === state.to) changes.to = state.from;
    else if (changes.to === state.from) changes.from = state.to;
    Object.assign(state, changes);
    show();
    ask("picture", ...jobs);
    clearTimeout(written); // browsers allow only so many addresses in a while
    written = setTimeout(() => history.replaceState(null, "", `?${toQuery(state)}#${root.id}`), 250);
  };
  const changeZ = (changes) => change(changes, "adaln", "spatial");
  const announce = (text) => {
    clearTimeout(announced); // what is to be said of an older picture must not take the place of this
    said.textContent = text;
  };

  const drawn = ({ job, pixels, probabilities }) => {
    busy = false;
    if (job === "picture") {
      paint(picture, pixels);
      [seen] = probabilities;
      const top = best(seen);
      bars.forEach(({ row, bar, number }, i) => {
        bar.style.width = `${100 * seen[i]}%`;
        number.textContent = percent(seen[i]);
        row.className = i === top ? "live-top" : "";
      });
      live.milliseconds = performance.now() - sent;
      live.frame += 1;
      root.dataset.frame = live.frame;
      clearTimeout(announced); // when the reader pauses, not at every step of a slider
      announced = setTimeout(() => announce(`${caption.textContent}. The judge reads ${classes[top]}, ${percent(seen[top])}.`), 700);
    } else {
      rows[job].forEach(({ input, canvas, verdict }, i) => {
        paint(canvas, pixels.subarray(i * SIDE * SIDE, (i + 1) * SIDE * SIDE));
        const read = best(probabilities[i]);
        verdict.textContent = read === i ? "✓" : classes[read];
        input.setAttribute("aria-label", `${NAMES[job]}, ${classes[i]}; the judge reads ${classes[read]}`);
      });
    }
    next();
  };

  share.addEventListener("input", () => change({ share: Number(share.value) }));
  from.addEventListener("change", () => change({ from: Number(from.value) }));
  to.addEventListener("change", () => change({ to: Number(to.value), share: state.share || 50 }));
  tracks.forEach(({ input }, track) => {
    input.addEventListener("input", () => changeZ({ edits: { ...state.edits, [sliders()[track]]: Number(input.value) } }));
    input.addEventListener("focus", () => { current = sliders()[track]; show(); });
    input.addEventListener("blur", () => { current = null; show(); });
  });
  shuffle.addEventListener("click", () => changeZ({ seed: 1 + Math.floor(Math.random() * 999999), garment: null, edits: {} }));
  undo.addEventListener("click", () => { changeZ({ edits: {} }); shuffle.focus(); });
  sources.forEach(({ input }, i) => input.addEventListener("change", () =>
    changeZ({ garment: i, from: garments[i].label, share: 0, edits: {} })));
  others.addEventListener("click", () => {
    shelf = (shelf + 1) % (garments.length / ten);
    fill();
    announce("Ten other garments are there to pick from.");
  });
  copy.addEventListener("click", async () => {
    history.replaceState(null, "", `?${toQuery(state)}#${root.id}`);
    try {
      await navigator.clipboard.writeText(location.href); // plain http has no clipboard, and a reader may refuse it
      announce("The link is copied.");
    } catch {
      announce("The link stands in the address bar of your browser.");
    }
  });
  new MutationObserver(show).observe(document.body, { attributes: true, attributeFilter: ["class"] }); // the theme

  const panel = make("div", { className: "live-panel" },
    make("div", { className: "live-first" }, make("div", { className: "live-picture" }, picture, make("div", { className: "live-caption" }, original, caption)), judge),
    what, how, given, every, make("div", { className: "live-below" }, copy, said));
  show();
  ask("picture", "adaln", "spatial");
  return { panel, drawn };
};

// ------------------------------------------------------------------------------------------------------------- the button

// What the address says, if it is one that this panel has written.
const shared = () => {
  const query = new URLSearchParams(location.search);
  return query.has("live") ? query : new URLSearchParams();
};

const start = (root) => {
  const still = root.querySelector(".live-still"), note = root.querySelector(".live-note");
  const button = make("button", { type: "button", textContent: "Run the decoder here" });
  const text = make("span", { role: "status" });
  const bar = make("progress", { hidden: true, max: 1, value: 0, "aria-label": "Download" });
  text.textContent = shared().has("live")
    ? "Somebody shared a picture with you: it is drawn when you press the button (15 MB, from this site)."
    : "Loads 15 MB from this site, once; nothing you do leaves your machine.";
  note.replaceChildren(button, bar, text);

  // The button that had the focus is disabled or gone; a reader who is elsewhere by now stays there.
  const takeFocus = (element) => {
    if (document.activeElement === document.body) element.focus({ preventScroll: true });
  };

  let attempts = 0;
  const run = async () => {
    button.disabled = true;
    let worker, shown;
    const failed = (message) => {
      worker?.terminate();
      delete root.live;
      if (shown) {
        shown.replaceWith(still, note);
        shown = null;
      }
      bar.hidden = true;
      button.disabled = false;
      button.textContent = "Try again";
      takeFocus(button);
      text.ariaLive = "polite";
      const why = navigator.onLine || !message.includes("could not be loaded") ? message : `${message}, as you are offline`;
      text.textContent = `The decoder cannot run here: ${why}. The picture above was drawn beforehand by the same models.`;
    };
    try {
      text.textContent = "Loading…";
      const again = attempts++ > 0;
      const answer = await fetch(new URL("live.json", folder), again ? { cache: "reload" } : {}).catch(() => null);
      if (!answer?.ok) throw new Error("live.json could not be loaded");
      const facts = await answer.json().catch(() => { throw new Error("live.json arrived damaged"); });
      bar.hidden = false;
      worker = new Worker(new URL("live-worker.js", import.meta.url), { type: "module" });
      worker.addEventListener("error", () => failed("its worker could not be loaded"));
      let ours;
      worker.addEventListener("message", ({ data }) => {
        if (data.error) failed(data.error);
        if (data.drawn) ours.drawn(data.drawn);
        if (data.progress) {
          const { loaded, total } = data.progress;
          bar.value = loaded / total;
          text.ariaLive = loaded < total ? "off" : "polite"; // two hundred numbers are not to be read out
          text.textContent = loaded < total
            ? `${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB` : "Starting…";
        }
        if (data.ready) {
          ours = explore(root, facts, worker, fromQuery(shared(), facts.garments.length)); // as the address stands now
          shown = ours.panel;
          still.remove();
          note.replaceWith(shown);
          takeFocus(shown.querySelector("select"));
        }
      });
      worker.postMessage({ start: facts, again });
    } catch (error) {
      failed(error.message);
    }
  };
  button.addEventListener("click", run);
};

document.querySelectorAll(".live").forEach(start);
