"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const form = document.body.dataset.form;
  const PAIR = [["first", "First is better", ["1", "ArrowLeft"]], ["tie", "Tie", ["0", "t"]], ["both_bad", "Both bad", ["x"]],
                ["second", "Second is better", ["2", "ArrowRight"]], ["skip", "Skip", ["s"]]];
  const MANY = [["send", "Save", ["Enter"]], ["clear", "Clear", ["Backspace"]], ["skip", "Skip", ["s"]]];
  const CHOICES = form === "pair" ? PAIR : MANY;
  const SHOWN = { ArrowLeft: "\u2190", ArrowRight: "\u2192", Backspace: "\u232b" };
  let who = "", task = null, values = [], at = 0, since = 0, waited = 0, busy = false;

  const add = (parent, tag, text, cls) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;   // text only: what models wrote is never markup
    if (cls) made.className = cls;
    parent.append(made);
    return made;
  };
  const note = (text, bad) => { $("note").textContent = text || ""; $("note").classList.toggle("bad", !!bad); };

  async function post(path, body) {
    const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(answer.status === 422 ? "The page and the server disagree: reload." : await answer.text());
    return answer.json();
  }

  // One request at a time: a key held down answers once, and nothing is shown as saved before it is.
  async function send(path, body) {
    if (busy) return;
    busy = true;
    document.body.setAttribute("aria-busy", "true");
    try { show(await post(path, body)); }
    catch (error) { note("Not saved: " + error.message + " Nothing was lost; try again.", true); }
    finally { busy = false; document.body.removeAttribute("aria-busy"); }
  }

  function show(said) {
    task = said.task; values = []; at = 0; waited = 0; since = performance.now();
    $("who").hidden = true; $("task").hidden = !task; $("done").hidden = !!task;
    const far = said.progress, all = far.done + far.left;
    $("far").textContent = `${who}: ${far.done} of ${all}` + (far.seconds ? `, ${far.seconds.toFixed(0)} s each` +
      (far.left ? `, about ${Math.max(1, Math.round(far.left * far.seconds / 60))} min left` : "") : "");
    $("bar").max = Math.max(all, 1); $("bar").value = far.done;
    $("reason").value = "";
    note(said.note);
    if (task) draw();
    window.scrollTo(0, 0);
  }

  function draw() {
    $("prompt").replaceChildren(); $("answers").replaceChildren();
    for (const turn of task.prompt) {
      const box = add($("prompt"), "div", undefined, "turn");
      if (turn.role) add(box, "span", turn.role, "role");
      add(box, "div", turn.text, "text");
    }
    task.texts.forEach((text, i) => {
      const box = add($("answers"), "article", undefined, "answer"), head = add(box, "h2");
      add(head, "span", form === "pair" ? ["First", "Second"][i] : `Answer ${i + 1}`);
      add(head, "span", "", "mark");
      add(box, "div", text, "text");
      if (form === "rating") {
        const scale = add(box, "div", undefined, "scale");
        for (let v = 1; v <= 5; v++) add(scale, "button", String(v)).addEventListener("click", () => { at = i; rate(v); });
      }
      if (form === "ranking") box.addEventListener("click", () => rank(i));
      if (form === "pair") box.addEventListener("dblclick", () => choose(["first", "second"][i]));
    });
    mark();
  }

  function mark() {
    [...$("answers").children].forEach((box, i) => {
      box.querySelector(".mark").textContent = values[i] ? (form === "ranking" ? `rank ${values[i]}` : `${values[i]} of 5`) : "";
      box.classList.toggle("at", form === "rating" && i === at);
      box.querySelectorAll(".scale button").forEach((b, v) => b.setAttribute("aria-pressed", String(values[i] === v + 1)));
    });
  }

  // The next free rank, or with `same` the last one given: two answers may share a rank.
  function rank(i, same) {
    if (!task || i >= task.texts.length || values[i]) return;
    const given = values.filter(Boolean);
    values[i] = same && given.length ? Math.max(...given) : (given.length ? Math.max(...given) + 1 : 1);
    mark();
  }

  function rate(v) {
    values[at] = v;
    at = Math.min(at + 1, task.texts.length - 1);
    mark();
  }

  const elapsed = () => (waited + (document.hidden ? 0 : performance.now() - since)) / 1000;
  function answer(label) {
    if (!task) return;
    const body = { annotator: who, item: task.item, answers: task.answers, label, reason: $("reason").value.trim(), seconds: Math.min(elapsed(), 86400) };
    if (label === "ranking" || label === "rating") body.values = task.texts.map((_, i) => values[i]);
    send("answer", body);
  }
  function choose(word) {
    if (!task) return;
    if (word === "clear") { values = []; at = 0; mark(); return; }
    if (word !== "send") { answer(word); return; }
    if (task.texts.every((_, i) => values[i])) answer(form);
    else note(form === "ranking" ? "Rank every answer first." : "Rate every answer first.", true);
  }

  async function agreement() {
    const found = await (await fetch("agreement")).json(), box = $("agreed");
    const fixed = (x, n) => x === null || x === undefined ? "\u2013" : x.toFixed(n);
    const table = (heads, rows) => {
      const made = add(box, "table"), head = add(add(made, "thead"), "tr"), body = add(made, "tbody");
      heads.forEach((h) => add(head, "th", h));
      rows.forEach((row) => { const line = add(body, "tr"); row.forEach((cell) => add(line, "td", cell)); });
    };
    box.replaceChildren();
    table(["who", "labels", "shown twice", "same again"], found.people.map((p) =>
      [p.name, String(p.labels), String(p.twice), p.consistency === null ? "\u2013" : `${Math.round(100 * p.consistency)}%`]));
    if (!found.alpha) { add(box, "p", "Agreement needs two: another person, or a judge of the same answers."); return; }
    const ci = (c) => c.ci95 ? `${fixed(c.ci95[0], 2)} to ${fixed(c.ci95[1], 2)}` : "\u2013";
    add(box, "h3", "Beyond chance, by preferred side");
    table(["", "value", "95% interval", "pairs"],
      [["Krippendorff's alpha, all", found.alpha], ["Fleiss' kappa, all", found.fleiss], ...found.cohen.map((c) => [`Cohen's kappa, ${c.a} and ${c.b}`, c])]
        .map(([name, c]) => [name, fixed(c.value, 2), ci(c), String(c.n)]));
  }

  for (const [word, text, keys] of CHOICES) {
    const button = add($("choices"), "button", text);
    button.type = "button"; button.dataset.word = word;
    add(button, "kbd", SHOWN[keys[0]] || keys[0]);
    button.addEventListener("click", () => choose(word));
  }
  const more = form === "ranking" ? "digits rank the answers, best first; = before a digit gives it the last rank again"
    : form === "rating" ? "1 to 5 rate the marked answer; Up and Down move" : "double-click an answer to choose it";
  $("keys").textContent = more;
  $("all-keys").textContent = CHOICES.map(([, text, keys]) => `${keys.join(" or ")}: ${text}`).join("\n") + `\n${more}\nr: write a reason\nu: undo\ng: guidelines`;

  let equal = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]") || !who) return;
    if (event.target === $("reason")) { if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); $("reason").blur(); } return; }
    if (event.target instanceof HTMLInputElement) return;
    if (event.target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const found = CHOICES.find(([, , keys]) => keys.includes(key));
    if (key === "u") send("undo", { annotator: who });
    else if (key === "r") { event.preventDefault(); $("reason").focus(); }
    else if (key === "g") $("guidelines").showModal();
    else if (found) { event.preventDefault(); choose(found[0]); }
    else if (form === "ranking" && key === "=") { equal = true; return; }
    else if (form === "ranking" && /^[1-9]$/.test(key)) rank(Number(key) - 1, equal);
    else if (form === "rating" && task && /^[1-5]$/.test(key)) rate(Number(key));
    else if (form === "rating" && task && (key === "ArrowUp" || key === "ArrowDown")) {
      event.preventDefault(); at = Math.min(Math.max(at + (key === "ArrowDown" ? 1 : -1), 0), task.texts.length - 1); mark();
    }
    equal = false;
  });
  // Time is counted while the page is looked at.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) waited += performance.now() - since; else since = performance.now();
  });
  $("undo").addEventListener("click", () => { if (who) send("undo", { annotator: who }); });
  $("show-guidelines").addEventListener("click", () => $("guidelines").showModal());
  $("show-agreement").addEventListener("click", () => { $("agreement").showModal(); agreement().catch((e) => { $("agreed").textContent = String(e); }); });
  document.querySelectorAll("dialog .close").forEach((b) => b.addEventListener("click", () => b.closest("dialog").close()));

  function begin(name) {
    who = name.trim();
    if (!who) return;
    try { localStorage.setItem("evenhand-annotator", who); } catch (_) { /* a private window: the name is asked again */ }
    location.hash = encodeURIComponent(who);
    $("name").blur();
    send("next", { annotator: who });
  }
  $("who").addEventListener("submit", (event) => { event.preventDefault(); begin($("name").value); });
  const known = decodeURIComponent(location.hash.slice(1));
  if (known) begin(known);
  else {
    $("who").hidden = false;
    try { $("name").value = localStorage.getItem("evenhand-annotator") || ""; } catch (_) { /* as above */ }
    $("name").focus();
  }
})();
