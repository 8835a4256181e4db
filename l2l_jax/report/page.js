"use strict";
// What the page does beyond showing: light or dark, one class only, and pictures enlarged, with a
// slider between two completions. Texts of a run are only ever set as text.
const byId = (id) => document.getElementById(id);
const pictures = [...document.querySelectorAll(".columns button")];
const rowsOfClasses = [...document.querySelectorAll("tr[data-class]")];

// Light or dark: as the system says, until somebody chooses.
const system = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
}
function nameTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
}
byId("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
system.addEventListener("change", nameTheme);
nameTheme();

// Only one class.
const filter = byId("filter");
const classed = [...pictures, ...rowsOfClasses].filter((each) => each.dataset.class);
for (const name of [...new Set(classed.map((each) => each.dataset.class))].sort()) {
  filter.add(new Option(name));
}
byId("filtering").hidden = filter.options.length < 3;
filter.addEventListener("change", () => {
  const wanted = filter.selectedIndex > 0 ? filter.value : null;
  for (const each of classed) each.hidden = wanted !== null && each.dataset.class !== wanted;
  for (const grid of document.querySelectorAll(".grid")) {
    grid.classList.toggle("empty", !grid.querySelector(".columns button:not([hidden])"));
  }
  const shown = pictures.filter((each) => !each.hidden).length;
  byId("shown").textContent = wanted === null ? "" : `${shown} of ${pictures.length} images`;
});
byId("controls").hidden = false;

// One image enlarged: left and right are rows of its grid, such as original and unlearned.
const viewer = byId("viewer"), cut = byId("cut"), left = byId("left"), right = byId("right");
let opened = null;
const gridOf = (button) => button.closest(".grid");
const rowsOf = (button) => JSON.parse(gridOf(button).dataset.rows);

function showRow(image, button, row) {
  const rows = rowsOf(button);
  image.src = button.querySelector("img").src;
  image.alt = `${button.dataset.name}: ${rows[row]}`;
  image.style.objectPosition = `0 ${(100 * row) / Math.max(1, rows.length - 1)}%`;
}
function slide() {
  byId("stage").style.setProperty("--cut", `${cut.value}%`);
  const [a, b] = [left, right].map((each) => each.selectedOptions[0].textContent);
  cut.setAttribute("aria-valuetext", `${cut.value} % ${a}, the rest ${b}`);
}
function compare() {
  showRow(byId("under"), opened, right.selectedIndex);
  showRow(byId("over"), opened, left.selectedIndex);
  slide();
}
function open(button) {
  const rows = rowsOf(button), known = left.options.length === rows.length;
  const before = [left.selectedIndex, right.selectedIndex];
  opened = button;
  byId("viewer-title").textContent = `${button.dataset.name} (${gridOf(button).dataset.title})`;
  byId("rows").replaceChildren(...rows.map((name, row) => {
    const figure = document.createElement("figure"), image = new Image();
    const caption = document.createElement("figcaption");
    showRow(image, button, row);
    caption.textContent = name;
    figure.append(image, caption);
    return figure;
  }));
  const second = rows.indexOf("unlearned"), first = rows.indexOf("original");
  [left, right].forEach((select, side) => {
    select.replaceChildren(...rows.map((name) => new Option(name)));
    const usual = side ? (second < 0 ? rows.length - 1 : second) : (first < 0 ? 0 : first);
    select.selectedIndex = known && viewer.open ? before[side] : usual;
  });
  if (!viewer.open) {
    cut.value = 50;
    viewer.showModal();
    cut.focus();
  }
  compare();
}
function step(by) {
  const all = pictures.filter((each) => !each.hidden);
  open(all[(all.indexOf(opened) + by + all.length) % all.length]);
}
for (const button of pictures) button.addEventListener("click", () => open(button));
for (const select of [left, right]) select.addEventListener("change", compare);
cut.addEventListener("input", slide);
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close();  // beside the picture
});
viewer.addEventListener("close", () => opened && opened.focus());
byId("stage").addEventListener("pointermove", (event) => {
  if (event.pointerType === "mouse" && !event.buttons) return;
  const box = byId("stage").getBoundingClientRect();
  cut.value = Math.round((100 * (event.clientX - box.left)) / box.width);
  slide();
});

// A printed page has everything unfolded, in light colours.
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details.figures")) each.open = true;
});
