"use strict";

// Columns that a click sorts, and numbers of figures at the pointer and the focus. The page is complete without.

function sortable(table) {
  const titles = [...table.tHead.rows].at(-1).cells;
  const planned = [...table.tBodies[0].rows];
  [...titles].forEach((title, at) => {
    const button = document.createElement("button");
    button.append(...title.childNodes);
    title.append(button);
    const orders = title.className === "number" ? ["descending", "ascending"] : ["ascending", "descending"];
    button.addEventListener("click", () => {
      const order = orders[orders.indexOf(title.getAttribute("aria-sort")) + 1];
      for (const other of titles) other.removeAttribute("aria-sort");
      if (order) title.setAttribute("aria-sort", order);
      table.tBodies[0].append(...(order ? sorted(planned, at, order === "ascending" ? 1 : -1) : planned));
    });
  });
}

function sorted(rows, at, sign) {
  const keys = new Map(rows.map(row => [row, key(row.cells[at])]));
  return [...rows].sort((one, other) => compare(keys.get(one), keys.get(other), sign));
}

// A number, a text, or NaN for a cell without a value, such as "—" among numbers.
function key(cell) {
  const text = cell.textContent.replace("−", "-");
  if (cell.className === "number") return text.startsWith("<") ? 0 : parseFloat(text);
  return text === "—" ? NaN : isNaN(text) ? text : Number(text);
}

function compare(one, other, sign) {
  const last = Number.isNaN(one) - Number.isNaN(other);
  if (last || Number.isNaN(one)) return last;
  if (typeof one === "number" && typeof other === "number") return sign * (one - other);
  return sign * String(one).localeCompare(String(other), undefined, { numeric: true });
}

const NEAR = 24; // pixels
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };

// A figure is one stop of the tab key; the arrows go from mark to mark.
function pointable(drawing, tip) {
  const marks = [...drawing.querySelectorAll(".mark")];
  let shown = null;

  function show(mark) {
    shown?.classList.remove("shown");
    shown = mark;
    tip.hidden = !mark;
    if (!mark) return;
    mark.classList.add("shown");
    tip.textContent = mark.getAttribute("aria-label");
    const { x, y } = center(mark), above = y - tip.offsetHeight - 12;
    const rightmost = document.documentElement.clientWidth - tip.offsetWidth - 4;
    tip.style.left = `${Math.max(4, Math.min(x - tip.offsetWidth / 2, rightmost)) + scrollX}px`;
    tip.style.top = `${(above < 4 ? y + 12 : above) + scrollY}px`;
  }

  function nearest(event) {
    const distance = mark => Math.hypot(center(mark).x - event.clientX, center(mark).y - event.clientY);
    const [least, mark] = marks.map(it => [distance(it), it]).reduce((a, b) => (b[0] < a[0] ? b : a));
    return least < NEAR ? mark : null;
  }

  marks.forEach((mark, at) => {
    const title = mark.querySelector("title");
    mark.setAttribute("aria-label", title.textContent);
    mark.setAttribute("role", "img");
    mark.setAttribute("tabindex", at ? -1 : 0);
    title.remove(); // the browser would show it, too
    mark.addEventListener("focus", () => {
      marks.forEach(it => it.setAttribute("tabindex", it === mark ? 0 : -1));
      show(mark);
    });
    mark.addEventListener("blur", () => show(null));
    mark.addEventListener("keydown", event => {
      if (event.key === "Escape") show(null);
      if (!(event.key in STEPS)) return;
      event.preventDefault();
      marks[Math.max(0, Math.min(at + STEPS[event.key], marks.length - 1))].focus();
    });
  });
  drawing.addEventListener("pointermove", event => show(nearest(event)));
  drawing.addEventListener("pointerleave", () => show(null));
  drawing.addEventListener("click", event => nearest(event)?.focus()); // a tap
}

function center(mark) {
  const box = mark.getBoundingClientRect();
  return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
}

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);
document.querySelectorAll("table").forEach(sortable);
document.querySelectorAll("svg:has(.mark)").forEach(drawing => pointable(drawing, tip));
