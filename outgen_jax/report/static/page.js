// What the page of a run does beyond showing itself: compare, amplify, filter, sort, find.
// Without it the page still has every image, half source and half generated, and every number.
"use strict";
document.documentElement.classList.add("js");
const find = (name) => document.getElementById(name);
const gallery = find("gallery");
const entries = [...gallery.querySelectorAll(".entry")];

function split(entry, percent) {
  const value = Math.min(100, Math.max(0, percent));
  entry.querySelector(".stage").style.setProperty("--split", value + "%");
  entry.querySelector("input").value = value;
}

// 127.5 + factor * (generated - source), pixel by pixel on the 8-bit images embedded in the page.
function drawDifference(entry) {
  const [source, generated] = entry.querySelectorAll(".stage img");
  const canvas = entry.querySelector("canvas");
  const [width, height] = [source.naturalWidth, source.naturalHeight];
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const read = (image) => {
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, width, height);
  };
  const [from, to] = [read(source), read(generated)];
  const factor = Number(find("amplify").value);
  for (let i = 0; i < to.data.length; i++) {
    if (i % 4 !== 3) to.data[i] = 127.5 + factor * (to.data[i] - from.data[i]);
  }
  context.putImageData(to, 0, 0);
}

function showDifference(entry, shown) {
  entry.classList.toggle("different", shown);
  entry.querySelector("button").setAttribute("aria-pressed", shown);
  if (shown) drawDifference(entry);
}

function arrange() {
  const words = find("search").value.toLowerCase();
  const wanted = find("filter").value;
  const [key, sign] = find("sort").value.split(" ");
  const order = (a, b) =>
    sign * (a.dataset[key] - b.dataset[key]) || a.dataset.index - b.dataset.index;
  gallery.append(...[...entries].sort(order));
  for (const entry of entries) {
    entry.hidden = (wanted !== "all" && entry.dataset.outcome !== wanted)
      || !entry.dataset.words.includes(words);
  }
  const shown = entries.filter((entry) => !entry.hidden).length;
  find("count").textContent = shown === entries.length ? "" : `${shown} of ${entries.length} shown`;
  find("nothing").hidden = shown > 0;
}

for (const entry of entries) {
  const stage = entry.querySelector(".stage");
  stage.addEventListener("pointermove", (event) => {
    const box = stage.getBoundingClientRect();
    split(entry, 100 * (event.clientX - box.left) / box.width);
  });
  entry.querySelector("input").addEventListener("input", (event) => {
    split(entry, event.target.valueAsNumber);
  });
  entry.querySelector("button").addEventListener("click", () => {
    showDifference(entry, !entry.classList.contains("different"));
  });
}
for (const name of ["filter", "sort", "search"]) find(name).addEventListener("input", arrange);
find("splits").addEventListener("input", (event) => {
  for (const entry of entries) {
    showDifference(entry, false);
    split(entry, event.target.valueAsNumber);
  }
  find("differences").setAttribute("aria-pressed", false);
});
find("differences").addEventListener("click", (event) => {
  const shown = event.target.getAttribute("aria-pressed") !== "true";
  event.target.setAttribute("aria-pressed", shown);
  for (const entry of entries) showDifference(entry, shown);
});
find("amplify").addEventListener("input", () => {
  find("factor").textContent = find("amplify").value;
  for (const entry of entries) if (entry.classList.contains("different")) drawDifference(entry);
});
find("amplify").dispatchEvent(new Event("input"));
arrange();
