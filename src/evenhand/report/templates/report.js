"use strict";
// Model text enters the page only through the template's escaping or through textContent, never as HTML.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

function bringForward() {
  // Hovering a name shows one arm; a click keeps it. One style rule does it for every figure at once.
  const rule = document.head.appendChild(document.createElement("style"));
  let kept = null;
  const show = (arm) => { rule.textContent = arm === null ? "" : `figure .arm:not(.arm${Number(arm)}) { opacity: .1; }`; };
  for (const key of all(".key")) {
    key.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") show(key.dataset.arm); });
    key.addEventListener("pointerleave", () => show(kept));
    key.addEventListener("click", () => {
      kept = kept === key.dataset.arm ? null : key.dataset.arm;
      for (const other of all(".key")) other.setAttribute("aria-pressed", String(other.dataset.arm === kept));
      show(kept);
    });
  }
}

function followReading() {
  const links = new Map(all("nav a[href^='#']:not(.brand)").map((link) => [link.hash.slice(1), link]));
  const sections = all("section[id]");
  const mark = () => {
    const current = sections.filter((section) => section.getBoundingClientRect().top < 120).at(-1);
    for (const [id, link] of links) link.classList.toggle("here", current !== undefined && id === current.id);
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

function unfold() {
  // Whoever follows a link to a folded section wants to read it; a printed page folds nothing.
  const open = (hash) => {
    const target = hash.length > 1 ? document.getElementById(decodeURIComponent(hash.slice(1))) : null;
    if (!target) return;
    const own = target.querySelector(":scope > details.fold");
    if (own) own.open = true;
    for (let up = target.closest("details"); up; up = up.parentElement.closest("details")) up.open = true;
  };
  addEventListener("click", (event) => { const link = event.target.closest("a[href^='#']"); if (link) open(link.hash); });
  addEventListener("hashchange", () => open(location.hash));
  open(location.hash);
  let folded = [];
  addEventListener("beforeprint", () => { folded = all("details:not([open])"); for (const part of folded) part.open = true; });
  addEventListener("afterprint", () => { for (const part of folded) part.open = false; });
}

function sideways(root = document) {
  // A table that is wider than its place says so until it was moved to its end.
  const tables = all(".scroll", root);
  const measure = (table) => {
    const wide = table.scrollWidth - table.clientWidth > 4;
    table.classList.toggle("wide", wide);
    table.classList.toggle("at-end", wide && table.scrollLeft + table.clientWidth > table.scrollWidth - 4);
    if (wide) { table.tabIndex = 0; table.setAttribute("role", "region"); table.setAttribute("aria-label", "table, scrolls sideways"); }
    else for (const name of ["tabindex", "role", "aria-label"]) table.removeAttribute(name);
  };
  const seen = new ResizeObserver((entries) => { for (const entry of entries) measure(entry.target); });
  for (const table of tables) {
    table.addEventListener("scroll", () => measure(table), { passive: true });
    seen.observe(table);
  }
}

function filterAnswers() {
  const form = document.getElementById("answer-filters");
  if (!form) return;
  const page = 6;
  const holder = document.getElementById("answer-cards");
  const more = document.getElementById("more-answers");
  const cards = all(".answers", holder).map((card) => ({
    card, answers: all(".answer", card), text: all(".prompt, .text", card).map((p) => p.textContent.toLowerCase()).join("\n"), place: Number(card.dataset.place), spread: Number(card.dataset.spread),
  }));
  let room = page;
  const gold = (entry, arm) => {
    const answer = entry.answers.find((a) => a.dataset.arm === arm);
    return answer && answer.dataset.gold !== undefined ? Number(answer.dataset.gold) : null;
  };
  const height = (entry, order) => {
    if (order === "spread") return entry.spread;
    const score = gold(entry, order.replace("-", ""));
    return score === null ? -Infinity : order.startsWith("-") ? -score : score;
  };
  const bound = (value, otherwise) => (value.trim() === "" || Number.isNaN(Number(value)) ? otherwise : Number(value));
  const apply = () => {
    const data = new FormData(form);
    const arms = new Set(data.getAll("arm"));
    const words = data.get("text").toLowerCase().trim();
    const low = bound(data.get("low"), -Infinity), high = bound(data.get("high"), Infinity);
    const limited = low > -Infinity || high < Infinity;
    const order = data.get("order"), verdict = data.get("verdict");
    const fits = (entry) => entry.text.includes(words)
      && (!verdict || entry.answers.some((a) => arms.has(a.dataset.arm) && a.dataset.verdict === verdict))
      && (!limited || entry.answers.some((a) => arms.has(a.dataset.arm) && a.dataset.gold !== undefined && Number(a.dataset.gold) >= low && Number(a.dataset.gold) <= high));
    const sorted = [...cards].sort((a, b) => (order && height(b, order) - height(a, order)) || a.place - b.place);
    const found = sorted.filter(fits);
    const shown = new Set(found.slice(0, room));
    for (const entry of sorted) {
      holder.append(entry.card);
      entry.card.hidden = !shown.has(entry);
      for (const answer of entry.answers) answer.hidden = !arms.has(answer.dataset.arm);
    }
    form.elements.count.value = `${found.length} of ${cards.length} prompts`;
    more.hidden = found.length <= room;
    more.textContent = `Show ${Math.min(page, found.length - room)} more`;
  };
  form.addEventListener("input", () => { room = page; apply(); });
  for (const button of all("button[name=all], button[name=none]", form)) {
    button.addEventListener("click", () => {
      for (const box of all("input[name=arm]", form)) box.checked = button.name === "all";
      apply();
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { room += page; apply(); });
  addEventListener("beforeprint", () => { room = Infinity; apply(); });
  form.hidden = false;
  apply();
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function replayTraining() {
  const source = document.getElementById("training-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const controls = document.getElementById("training-controls");
  const view = document.getElementById("training-view");
  const prompt = controls.querySelector("[name=prompt]"), at = controls.querySelector("[name=at]"), step = controls.querySelector("[name=step]");
  data.prompts.forEach((entry, index) => {
    const line = entry.prompt.replace(/\s+/g, " ");
    prompt.append(new Option(line.length > 90 ? line.slice(0, 89) + "…" : line, index));
  });
  at.max = data.steps.length - 1;
  at.value = at.max;
  const column = ([name, color, seed], rows, now) => {
    const row = rows.filter((r) => r[0] <= now).at(-1);
    const box = element("div", "answer");
    box.style.setProperty("--c", color);
    const head = element("h4", "");
    head.append(element("span", "chip", name), element("span", "score", row && row[2] !== null ? row[2].toFixed(2) : ""));
    const length = row && row[3] !== null ? ` · ${row[3]} tokens` : "";
    box.append(head, element("p", "text", row ? row[1] || "(empty answer)" : "(nothing recorded yet)"), element("p", "meta", row ? `step ${row[0]}${length} · seed ${seed}` : `seed ${seed}`));
    return box;
  };
  const draw = () => {
    const entry = data.prompts[Number(prompt.value)], now = data.steps[Number(at.value)];
    const columns = element("div", "columns");
    for (const arm of data.arms) columns.append(column(arm, entry.arms[arm[0]], now));
    view.replaceChildren(element("p", "prompt", entry.prompt), columns);
    step.value = now;
  };
  controls.addEventListener("input", draw);
  controls.hidden = false;
  draw();
}

function readCells() {
  // A crowded matrix shows differences only; the rest of a cell is told below it.
  const told = document.querySelector(".told");
  if (!told) return;
  const read = (event) => { const cell = event.target.closest("td[title]"); if (cell) told.textContent = cell.title; };
  for (const table of all(".matrix.small")) {
    table.addEventListener("pointerover", read);
    table.addEventListener("click", read);
  }
}

bringForward();
readCells();
followReading();
unfold();
sideways();
filterAnswers();
replayTraining();
