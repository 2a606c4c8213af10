// The bars of the page: a share of 100 % each, or a number each.
"use strict";
let moving = false; // a move of a bar is being answered
let waiting = []; // the moves that the server has not heard of, in their order

const areNumbers = () => network.unit !== null;

function showBars(bars) {
  const key = JSON.stringify([network.name, bars.map((bar) => [bar.entry, bar.decimals])]);
  const box = find("bars");
  if (box.dataset.key !== key) {
    box.dataset.key = key;
    box.replaceChildren(...bars.map(areNumbers() ? newNumber : newShare));
  }
  bars.forEach((bar, place) => {
    const row = box.children[place];
    (areNumbers() ? showNumber : showShare)(row, bar);
    row.querySelector(".before").style.left = along(bar, bar.before);
    const reached = state.reached && state.reached.says.length === bars.length;
    showSays(row, bar, reached ? state.reached.says[place] : bar.before);
  });
}

// Where a value stands on its bar, as CSS has it.
function along(bar, value) {
  const [low, high] = areNumbers() ? [bar.low, bar.high] : [0, 1];
  return `${(100 * Math.min(Math.max((value - low) / (high - low), 0), 1)).toFixed(1)}%`;
}

// What the network says: from 0, or from the end that is nearest to it.
function showSays(row, bar, value) {
  const [low, high] = areNumbers() ? [bar.low, bar.high] : [0, 1];
  const ends = [value, Math.min(Math.max(0, low), high)].sort((a, b) => a - b);
  const fill = row.querySelector(".reached").style;
  fill.left = along(bar, ends[0]);
  fill.right = `${100 - parseFloat(along(bar, ends[1]))}%`;
  const range = row.querySelector("[type=range]");
  if (!areNumbers()) {
    range.setAttribute("aria-valuetext", `${range.value} percent wanted, the network says ${percent(value)}`);
    return;
  }
  const says = written(value, bar.decimals + 1);
  row.querySelector(".says").textContent = says;
  range.setAttribute("aria-valuetext", `${bar.free ? "free" : `${bar.value} wanted`}, the network says ${says}`);
}

// A number with so many decimals, or with an exponent where that would be long.
function written(value, decimals) {
  const text = Math.abs(value) < 1e7 ? value.toFixed(Math.max(decimals, 0)) : value.toPrecision(4);
  return text.replace("-", "−");
}

// --- their parts ---

const ICONS = {
  lock: '<svg viewBox="0 0 24 24" aria-hidden="true"><path class="shackle" d="M8 11V8a4 4 0 0 1 8 0v3"/><rect x="5.5" y="11" width="13" height="9" rx="2"/></svg>',
  remove: '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M7 7l10 10M17 7L7 17"/></svg>',
};

function iconButton(icon, label, onClick) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "icon", innerHTML: ICONS[icon] });
  button.setAttribute("aria-label", label);
  button.title = label;
  button.addEventListener("click", onClick);
  return button;
}

function input(type, label, settings) {
  const found = Object.assign(document.createElement("input"), { type, ...settings });
  found.setAttribute("aria-label", label);
  return found;
}

const span = (className, textContent) => Object.assign(document.createElement("span"), { className, textContent, title: textContent });

// `tell(value, isLast)` hears of every move; arrow keys move by `coarse`, with Shift by a step, as the browser does.
function slider(range, coarse, tell) {
  range.addEventListener("input", () => tell(range.valueAsNumber, false));
  range.addEventListener("change", () => tell(range.valueAsNumber, true));
  range.addEventListener("keydown", (event) => {
    const sign = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!sign || event.shiftKey) return;
    event.preventDefault();
    range.value = Math.round(range.valueAsNumber / coarse + sign) * coarse;
    tell(range.valueAsNumber, true);
  });
  const box = document.createElement("div");
  box.className = "slider";
  box.innerHTML = '<div class="track"><div class="reached"></div></div><i class="before"></i>';
  box.append(range);
  return box;
}

// --- shares ---

function newShare(bar, place) {
  const row = document.createElement("div");
  row.className = "bar";
  const tell = (share, isLast) => move("move", { place, value: share / 100, isLast });
  const lock = iconButton("lock", `Lock ${bar.name}`, () =>
    act("lock", { place, locked: lock.getAttribute("aria-pressed") === "false" }));
  const ends = { min: 0, max: 100, step: 0.1 };
  const number = input("number", `${bar.name}, wanted, in percent`, ends);
  number.addEventListener("change", () => tell(number.valueAsNumber || 0, true));
  const unit = Object.assign(document.createElement("span"), { className: "number", textContent: "%" });
  unit.prepend(number);
  row.append(lock, span("name", bar.name), slider(input("range", `${bar.name}, wanted`, ends), 1, tell), unit);
  if (!network.hasBarForEach) {
    const remove = iconButton("remove", `Remove ${bar.name}`, () => act("remove_class", { place }));
    remove.style.visibility = bar.entry < 0 ? "hidden" : ""; // the rest stays, and its column is kept
    row.append(remove);
  }
  return row;
}

function showShare(row, bar) {
  const [range, number] = [row.querySelector("[type=range]"), row.querySelector("[type=number]")];
  range.value = number.value = (100 * bar.value).toFixed(1);
  range.disabled = number.disabled = bar.locked;
  row.querySelector(".icon").setAttribute("aria-pressed", bar.locked);
}

// --- numbers ---

function newNumber(bar, place) {
  const row = document.createElement("div");
  row.className = "bar value";
  const tell = (value, isLast) => move("prescribe", { place, value, isLast });
  const check = input("checkbox", `Prescribe ${bar.name}`, { title: `Prescribe ${bar.name}, or leave it free` });
  check.addEventListener("change", () => act("leave_free", { place, free: !check.checked }));
  const range = input("range", `${bar.name}, wanted`, {});
  const number = input("number", `${bar.name}, wanted, as a number; empty to leave it free`, { step: "any", placeholder: "free" });
  number.addEventListener("change", () => {
    if (Number.isFinite(number.valueAsNumber)) tell(number.valueAsNumber, true);
    else if (number.validity.badInput) show(state); // what is no number is put back
    else act("leave_free", { place, free: true });
  });
  row.append(check, span("name", bar.name), slider(range, 10 ** (1 - bar.decimals), tell), number, span("says", ""));
  return row;
}

function showNumber(row, bar) {
  const [range, number] = [row.querySelector("[type=range]"), row.querySelector("[type=number]")];
  Object.assign(range, { min: bar.low, max: bar.high, step: 10 ** -bar.decimals });
  range.value = bar.value; // a value beyond the ends stands at the end
  number.value = bar.free ? "" : bar.value;
  row.querySelector("[type=checkbox]").checked = !bar.free;
  row.classList.toggle("free", bar.free);
}

// What numbers need to be told, and only they.
function showUnit(unit) {
  find("heads").hidden = find("unit").hidden = unit === null;
  find("unit").textContent =
    `Distance and tolerance: the root mean square error of the checked numbers, in units of ${unit}.`;
}

// --- moves ---

// Moves go to the server one at a time; of those of one bar that wait in a row only the latest counts.
async function move(name, body) {
  if (waiting.length && waiting.at(-1).body.place === body.place) waiting.pop();
  waiting.push({ name, body });
  if (moving) return;
  moving = true;
  await attempt(async () => {
    while (waiting.length) {
      const next = waiting.shift();
      const found = await post(next.name, next.body);
      if (!waiting.length) show(found);
    }
  });
  [moving, waiting] = [false, []]; // after a failure, what still waited is dropped
}
