// The page of the studio: shows what the server says of the session, and tells it what the user does.
"use strict";
const find = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const precision = (distance) => (distance === null ? "–" : distance.toPrecision(2));
const NETWORK_IS_READY = "Ready. Drag the bars, then run.";
const ALL_ARE_FREE = "Ready. All numbers are free: move one, or check its box, then run.";
const COMPILING = "Compiling the solver for this network. The first time takes minutes, later starts seconds.";
// Seconds without a step after which a part of the solver that is not compiled yet is the likely cause.
const SILENCE = 5;

let api = ""; // address of this window's session
let network = null;
let state = null;
let running = null; // while a run goes on: when its last step was heard of

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(`${api}/${path}`, options);
  } catch {
    throw new Error("The studio does not answer. Is it still running in the terminal?");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error || `The studio answers with error ${answer.status}.`);
  return content;
}

const post = (path, body = {}) =>
  call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

// Runs an action; a message of its failure is for the user.
async function attempt(action) {
  try {
    say("");
    await action();
  } catch (error) {
    say(error.message);
  }
}

const act = (name, body) => attempt(async () => show(await post(name, body)));

function say(text, isNote = false) {
  const message = find("message");
  message.hidden = !text;
  message.textContent = text;
  message.classList.toggle("note", isNote);
}

function status(text, kind = "") {
  if (find("status").textContent === text) return;
  find("status").textContent = text;
  find("status").className = kind;
}

// --- what changes with the network ---

function showNetwork(found) {
  network = found;
  const option = (value, text) => new Option(text, value);
  find("network").replaceChildren(...found.networks.map((n) => option(n.name, n.title)));
  find("network").value = found.name;
  find("tolerance").replaceChildren(...found.tolerances.map((t) => option(t, String(t))));
  find("add").hidden = found.hasBarForEach;
  find("top-box").hidden = found.hasBarForEach;
  showUnit(found.unit);
  find("png-note").hidden = found.correctsPng;
  const names = found.hasBarForEach ? [] : found.classes;
  find("classes").replaceChildren(...names.map((name) => new Option("", name)));
  document.querySelector(".figures").classList.toggle("small-pixels", found.size < 100);
  find("starts").replaceChildren(...found.starts.map(startButton));
}

function startButton(start) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = start.label;
  button.dataset.key = `${start.kind}/${start.name}`;
  const image = new Image();
  [image.src, image.alt] = [start.image, start.label];
  button.append(image);
  button.addEventListener("click", () => act("choose_image", { kind: start.kind, name: start.name }));
  return button;
}

// --- what changes with every action ---

function show(found) {
  state = found;
  find("source").src = found.image.url;
  find("source").alt = `The source image: ${found.image.name}`;
  for (const button of find("starts").children) {
    button.setAttribute("aria-pressed", button.dataset.key === `${found.image.kind}/${found.image.name}`);
  }
  find("tolerance").value = found.tolerance;
  find("python").textContent = found.python;
  [find("undo").disabled, find("redo").disabled] = [!found.canUndo, !found.canRedo];
  showBars(found.bars);
  showReached(found.reached);
  if (!running) showEnd(found.reached);
  if (found.notes.length) say(found.notes.join(" "), true);
}

function showReached(reached) {
  find("result").src = reached ? reached.image : state.image.url;
  find("difference").hidden = !reached;
  if (reached) find("difference").src = reached.difference;
  find("factor").textContent = reached ? `× ${reached.factor}` : "";
  find("distance").textContent = precision(reached && reached.distance);
  find("png-distance").textContent = precision(reached && reached.pngDistance);
  const after = reached && reached.reachedAfter;
  find("after").textContent = after ? `${after.toFixed(2)} s` : "–";
  find("steps").textContent = reached ? reached.steps : "–";
  find("change").textContent = reached ? reached.change.toFixed(2) : "–";
  const top = (reached || state).top.map((entry) => {
    const item = document.createElement("li");
    item.append(entry.name, Object.assign(document.createElement("b"), { textContent: percent(entry.value) }));
    return item;
  });
  find("top").replaceChildren(...top);
  if (reached && reached.says.length === state.bars.length) {
    [...find("bars").children].forEach((row, place) => showSays(row, state.bars[place], reached.says[place]));
  }
}

function showEnd(reached) {
  find("run").disabled = !state.isReady || state.allFree;
  if (!state.isReady) status(COMPILING);
  else if (state.allFree) status(ALL_ARE_FREE);
  else if (!reached) status(NETWORK_IS_READY);
  else if (!state.isCurrent) status("The target has changed since the last run.");
  else if (reached.converged) status(`Reached within ${state.tolerance}.`, "good");
  else status("Not reached. Choose a larger tolerance, another target or another image.", "bad");
}

// --- runs ---

async function run() {
  say("");
  running = performance.now();
  setRunning(true);
  status("Running: looking for an image that the network answers as wanted.");
  find("result").scrollIntoView({ block: "nearest" }); // on a narrow screen the bars may have been in view
  try {
    const answer = await fetch(`${api}/run`, { method: "POST" });
    if (!answer.ok) throw new Error((await answer.json()).error);
    for await (const line of lines(answer.body)) hear(line);
  } catch (error) {
    say(error.message || "The studio does not answer. Is it still running in the terminal?");
  }
  running = null;
  setRunning(false);
  showEnd(state.reached);
}

function stop() {
  status("Stopping after this step …");
  return attempt(() => post("stop"));
}

function hear(line) {
  running = performance.now();
  if (line.step) {
    state.reached = line.step;
    showReached(line.step);
    if (line.step.converged) status("Reached. The solver makes the change smaller.", "good");
  }
  if (line.isRounding) status("Rounding to 8 bits for the PNG.");
  if (line.state) show(line.state);
  if (line.error) say(line.error);
}

async function* lines(body) {
  let text = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n");
    text = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

function setRunning(isRunning) {
  find("run").textContent = isRunning ? "Stop" : "Run";
  find("run").classList.toggle("stop", isRunning);
  document.querySelector(".progress").hidden = !isRunning;
  for (const id of ["network", "tolerance", "file"]) find(id).disabled = isRunning;
  for (const button of find("starts").children) button.disabled = isRunning;
  find("target").inert = isRunning;
  for (const id of ["undo", "redo"]) find(id).disabled = isRunning || !state[id === "undo" ? "canUndo" : "canRedo"];
}

function tellOfSilence() {
  if (running && performance.now() - running > 1000 * SILENCE) {
    status("Waiting for the next step. A part of the solver may be compiling, which happens once.");
  }
}

// --- start ---

async function upload(file) {
  await attempt(async () => {
    show(await call(`upload?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file }));
  });
  find("file").value = ""; // so that the same file can be chosen again
}

async function waitUntilReady() {
  const name = state.network;
  await call("ready");
  if (state.network !== name) return;
  state.isReady = true;
  if (!running) showEnd(state.reached);
}

async function changeNetwork(change) {
  await attempt(async () => {
    const found = await change();
    if (found.network !== network.name) showNetwork(await call("network"));
    show(found);
    if (!found.isReady) await waitUntilReady();
  });
}

async function copy() {
  try {
    await navigator.clipboard.writeText(state.python);
    status("The Python is in the clipboard.", "good");
  } catch {
    document.querySelector("details").open = true;
    getSelection().selectAllChildren(find("python"));
    status("The browser does not allow copying; the text is selected.", "bad");
  }
}

function listen() {
  find("run").addEventListener("click", () => (running ? stop() : run()));
  for (const name of ["undo", "redo"]) find(name).addEventListener("click", () => changeNetwork(() => post(name)));
  find("reset").addEventListener("click", () => act("reset"));
  find("copy").addEventListener("click", copy);
  find("network").addEventListener("change", (event) => {
    status("Loading the network …");
    changeNetwork(() => post("choose_network", { name: event.target.value }));
  });
  find("tolerance").addEventListener("change", (event) => act("choose_tolerance", { tolerance: event.target.value }));
  find("file").addEventListener("change", (event) => event.target.files.length && upload(event.target.files[0]));
  find("add").addEventListener("submit", (event) => {
    event.preventDefault();
    act("add_class", { name: find("class").value });
    find("class").value = "";
  });
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || running) return;
    if (event.target.matches("input:not([type=range], [type=checkbox])")) return; // the text's own
    event.preventDefault();
    find(event.shiftKey ? "redo" : "undo").click();
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    find("drop").hidden = running !== null;
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || (find("drop").hidden = true));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    find("drop").hidden = true;
    if (event.dataTransfer.files.length && !running) upload(event.dataTransfer.files[0]);
  });
  setInterval(tellOfSilence, 1000);
}

async function start() {
  listen();
  await attempt(async () => {
    api = "/api";
    const opened = await post("sessions");
    api = `/api/sessions/${opened.token}`;
    [find("png").href, find("json").href] = [`${api}/image.png`, `${api}/result.json`];
    showNetwork(opened.network);
    show(opened.state);
    if (!opened.state.isReady) await waitUntilReady();
  });
}

start();
