// Runs the decoders and the judge away from the page, so that neither typing nor dragging ever waits for a picture.
// In: {start, again} once, then {job, model, z, cond, count}. Out: {progress}, {ready} or {error}, then {drawn}.
const folder = new URL("live/", import.meta.url);
const sessions = {};
let Tensor, shapes;

const fail = (message) => { throw new Error(message); };

// A file with its download reported in bytes, and its SHA-256 compared (browsers compute one on https and localhost only).
const load = async (name, { bytes, sha256 }, options, report) => {
  const answer = await fetch(new URL(name, folder), options).catch(() => fail(`${name} could not be loaded`));
  if (!answer.ok) fail(`${name} could not be loaded (the server says ${answer.status})`);
  const content = new Uint8Array(bytes);
  let size = 0;
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch(() => fail(`${name} could not be loaded: the connection broke off`));
    if (done) break;
    if (size + value.length > bytes) fail(`${name} arrived damaged: it is longer than it should be`);
    content.set(value, size);
    size += value.length;
    report(value.length);
  }
  if (size < bytes) fail(`${name} arrived damaged: it is shorter than it should be`);
  if (self.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hex !== sha256) fail(`${name} arrived damaged: its SHA-256 is not the one this page expects`);
  }
  return content;
};

const start = async ({ decoders, judge }, again) => {
  if (typeof WebAssembly !== "object") fail("this browser does not run WebAssembly");
  // The smallest module there is: a policy that forbids WebAssembly shows before anything large is loaded.
  await WebAssembly.instantiate(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0))
    .catch(() => fail("WebAssembly is there, but a policy of this browser or of the server does not let it run"));
  const options = again ? { cache: "reload" } : {};
  const listed = await fetch(new URL("ort/ort.json", folder), options).catch(() => null);
  if (!listed?.ok) fail("onnxruntime-web could not be loaded; perhaps this copy of the page was built without it");
  const runtime = await listed.json();
  const models = { ...decoders, judge };
  const total = runtime["ort.wasm"].bytes + Object.values(models).reduce((sum, { bytes }) => sum + bytes, 0);
  let loaded = 0, told = 0;
  const report = (bytes) => {
    loaded += bytes;
    if (loaded - told < total / 200 && loaded < total) return;
    told = loaded;
    postMessage({ progress: { loaded, total } });
  };
  const names = Object.keys(models);
  const [wasm, ...files] = await Promise.all([
    load("ort/ort.wasm", runtime["ort.wasm"], options, report),
    ...names.map((name) => load(`${name}.onnx`, models[name], options, report)),
  ]);
  const ort = await import(new URL("ort/ort.js", folder)).catch(() => fail("ort.js could not be loaded"));
  ort.env.wasm.numThreads = 1; // several need headers that static hosts do not send
  ort.env.wasm.wasmBinary = wasm.buffer;
  Tensor = ort.Tensor;
  for (const [i, name] of names.entries()) {
    sessions[name] = await ort.InferenceSession.create(files[i], { executionProviders: ["wasm"] })
      .catch((error) => fail(`onnxruntime-web does not start (${error.message})`));
  }
  shapes = Object.fromEntries(Object.entries(decoders).map(([name, { cond_shape }]) => [name, cond_shape]));
};

const draw = async ({ job, model, z, cond, count }) => {
  const { image } = await sessions[model].run({
    z: new Tensor("float32", z, [count, 1, 7, 7]),
    cond: new Tensor("float32", cond, [count, ...shapes[model]]),
  });
  const { logits } = await sessions.judge.run({ image });
  const classes = logits.dims[1];
  const probabilities = Array.from({ length: count }, (_, i) => {
    const row = logits.data.slice(i * classes, (i + 1) * classes);
    const top = Math.max(...row);
    const powers = Array.from(row, (value) => Math.exp(value - top));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  });
  postMessage({ drawn: { job, pixels: image.data, probabilities } });
};

// One after the other: a session takes one call at a time.
let last = Promise.resolve();
self.addEventListener("message", ({ data }) => {
  last = last
    .then(() => (data.start ? start(data.start, data.again).then(() => postMessage({ ready: true })) : draw(data)))
    .catch((error) => postMessage({ error: error.message }));
});
