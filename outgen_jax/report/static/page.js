// What the page of a run does beyond showing itself: compare, amplify, filter, sort, find.
// Without it the page still has every image, half source and half generated, and every number.
"use strict";
document.documentElement.classList.add("js");
const find = (name) => document.getElementById(name);
const gallery = find("gallery");
const cards = [...gallery.querySelectorAll(".card")];

function split(card, percent) {
  const value = Math.min(100, Math.max(0, percent));
  card.querySelector(".stage").style.setProperty("--split", value + "%");
  card.querySelector("input").value = value;
}

// 127.5 + factor * (generated - source), pixel by pixel on the 8-bit images embedded in the page.
function drawDifference(card) {
  const [source, generated] = card.querySelectorAll(".stage img");
  const canvas = card.querySelector("canvas");
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

function showDifference(card, shown) {
  card.classList.toggle("different", shown);
  card.querySelector("button").setAttribute("aria-pressed", shown);
  if (shown) drawDifference(card);
}

function arrange() {
  const words = find("search").value.toLowerCase();
  const wanted = find("filter").value;
  const [key, sign] = find("sort").value.split(" ");
  const order = (a, b) =>
    sign * (a.dataset[key] - b.dataset[key]) || a.dataset.index - b.dataset.index;
  gallery.append(...[...cards].sort(order));
  for (const card of cards) {
    card.hidden = (wanted !== "all" && card.dataset.outcome !== wanted)
      || !card.dataset.words.includes(words);
  }
  const shown = cards.filter((card) => !card.hidden).length;
  find("count").textContent = shown === cards.length ? "" : `${shown} of ${cards.length} shown`;
  find("nothing").hidden = shown > 0;
}

for (const card of cards) {
  const stage = card.querySelector(".stage");
  stage.addEventListener("pointermove", (event) => {
    const box = stage.getBoundingClientRect();
    split(card, 100 * (event.clientX - box.left) / box.width);
  });
  card.querySelector("input").addEventListener("input", (event) => {
    split(card, event.target.valueAsNumber);
  });
  card.querySelector("button").addEventListener("click", () => {
    showDifference(card, !card.classList.contains("different"));
  });
}
for (const name of ["filter", "sort", "search"]) find(name).addEventListener("input", arrange);
find("splits").addEventListener("input", (event) => {
  for (const card of cards) {
    showDifference(card, false);
    split(card, event.target.valueAsNumber);
  }
  find("differences").setAttribute("aria-pressed", false);
});
find("differences").addEventListener("click", (event) => {
  const shown = event.target.getAttribute("aria-pressed") !== "true";
  event.target.setAttribute("aria-pressed", shown);
  for (const card of cards) showDifference(card, shown);
});
find("amplify").addEventListener("input", () => {
  find("factor").textContent = find("amplify").value;
  for (const card of cards) if (card.classList.contains("different")) drawDifference(card);
});
find("amplify").dispatchEvent(new Event("input"));
arrange();
