"use strict";
// Without this script the page shows everything in the order in which it was written.

function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === "" || b === "") return (a === "") - (b === ""); // what has no value comes last
    const both = [Number(a), Number(b)];
    const order = both.some(Number.isNaN) ? a.localeCompare(b) : both[0] - both[1];
    return direction === "ascending" ? order : -order;
  });
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction);
      sortBy(table, column, direction);
    });
  });
}

const order = document.getElementById("order");
const find = document.getElementById("find");
const count = document.getElementById("count");
const list = document.getElementById("files");

function arrange() {
  if (!list) return;
  const files = [...list.children];
  const [key, direction] = order.value.split(" ");
  const value = (file) => (key === "number" ? Number(file.dataset.number) : JSON.parse(file.dataset.values)[key]);
  files.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a == null || b == null) return (a == null) - (b == null);
    return direction === "down" ? b - a : a - b;
  });
  list.append(...files);
  const wanted = find.value.trim().toLowerCase();
  let shown = 0;
  for (const file of files) {
    file.hidden = !file.dataset.name.toLowerCase().includes(wanted);
    shown += !file.hidden;
  }
  count.textContent = `${shown} of ${files.length} files`;
}

if (list) {
  order.addEventListener("change", arrange);
  find.addEventListener("input", arrange);
}

const cost = document.getElementById("cost");
cost?.addEventListener("change", () => {
  for (const chart of document.querySelectorAll("div.cost")) chart.hidden = chart.dataset.cost !== cost.value;
});

// One sound at a time; n and p play the next and the previous one.
const players = () => [...document.querySelectorAll("audio")].filter((player) => player.offsetParent !== null);
let current = null;
document.addEventListener("play", (event) => {
  if (current && current !== event.target) current.pause();
  current = event.target;
}, true);
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { n: 1, p: -1 }[event.key];
  if (!step) return;
  const all = players();
  const next = all[all.indexOf(current) + step];
  if (!next) return;
  next.currentTime = 0;
  next.play();
  next.focus();
  next.scrollIntoView({ block: "nearest" });
});

const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  theme.setAttribute("aria-pressed", String(!dark));
});
