"use strict";
// Draws each chart when it comes into view, in the colours of the page; draws all of them before printing; sorts tables.

const look = document.getElementById("look").textContent;
const charts = [...document.querySelectorAll(".chart")];
const drawn = new Set();

// A chart's JSON with the page's colours in the place of var(--name).
function inColours(text) {
  const style = getComputedStyle(document.documentElement);
  const colour = (value) => value.replace(/^var\((--[\w-]+)\)$/, (_, name) => style.getPropertyValue(name).trim());
  return JSON.parse(text, (_, value) => (typeof value === "string" ? colour(value) : value));
}

function draw(chart) {
  const { data, layout } = inColours(document.getElementById(chart.dataset.source).textContent);
  const buttons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];  // none that leaves the page
  const settings = { responsive: true, displaylogo: false, modeBarButtons: buttons };
  drawn.add(chart);
  Plotly.react(chart, data, { ...layout, template: inColours(look) }, settings);
}

const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && !drawn.has(target)) {
        observer.unobserve(target);
        draw(target);
      }
    }
  },
  { rootMargin: "300px" },
);
charts.forEach((chart) => observer.observe(chart));

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));

const closed = [...document.querySelectorAll("details")];
addEventListener("beforeprint", () => {
  document.documentElement.dataset.theme = "light";
  closed.filter((part) => !part.open).forEach((part) => { part.dataset.closed = ""; part.open = true; });
  charts.forEach(draw);
});
addEventListener("afterprint", () => {
  delete document.documentElement.dataset.theme;
  closed.filter((part) => "closed" in part.dataset).forEach((part) => { delete part.dataset.closed; part.open = false; });
  drawn.forEach(draw);
});

// A link to a run opens it.
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", openTarget);
openTarget();

function sortBy(button) {
  const heading = button.closest("th");
  const body = heading.closest("table").tBodies[0];
  const descending = heading.getAttribute("aria-sort") === "ascending";
  const key = (row) => row.cells[heading.cellIndex].dataset.key ?? "";
  const numbers = [...body.rows].every((row) => key(row) === "" || !Number.isNaN(Number(key(row))));
  const order = (a, b) => (numbers ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b)));
  const known = [...body.rows].filter((row) => key(row) !== "").sort(order);
  const unknown = [...body.rows].filter((row) => key(row) === "");  // last in either direction
  body.append(...(descending ? known.reverse() : known), ...unknown);
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
}
document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => sortBy(button)));
