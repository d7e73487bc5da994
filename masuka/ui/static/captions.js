/* The caption editor. Rows come in pages and are never drawn over; one is written in at a time, and each
   saves itself. What was typed and is not stored yet is kept in this browser too. */
(() => {
  "use strict";
  const { all, make, send, chosen } = window.masuka;
  const SOON_MS = 10, MARKS_MS = 1200, METERED = 150, TYPED_MS = 200, LATEST_MS = 30000, UNANSWERED_MS = 15000, JUMP = 10;
  const DRAFTS = "masuka:caption-drafts";
  const edits = new Map(); /* picture → what is typed, what is stored, and how saving goes */
  let grid = null, shownFor = "", pages = [], total = 0, more = "", loading = 0, seen = null, editor = null, current = null;
  let starting = false, orders = 0, marksTimer = 0, typedTimer = 0, foundTimer = 0;
  const $ = (id) => document.getElementById(id);
  const several = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  const put = (element, text) => { if (element && element.textContent !== text) element.textContent = text; };
  const row = (id) => grid && grid.querySelector(`.caption[data-id="${id}"]`);
  const rows = () => (grid ? all(".caption", grid) : []);
  const cell = (line) => line.querySelector("[data-text]");
  const writes = () => grid && grid.getAttribute("aria-readonly") !== "true";
  const say = (text) => put(document.querySelector("[data-captions-says]"), text);
  const query = () => ({ q: $("captions-search")?.value.trim() || "", only: $("captions-only")?.checked ? "problems" : "" });

  /* drafts: what is not stored yet outlives a reload */
  const drafts = () => { try { return JSON.parse(localStorage.getItem(DRAFTS)) || {}; } catch { return {}; } };
  const keepDraft = (id, draft) => {
    const known = drafts();
    if (draft) known[id] = draft; else if (id in known) delete known[id]; else return;
    try { localStorage.setItem(DRAFTS, JSON.stringify(known)); } catch { /* then this page alone keeps it */ }
  };
  const state = (line) => {
    const id = Number(line.dataset.id);
    if (!edits.has(id)) {
      const text = cell(line).textContent;
      edits.set(id, { id, saved: text, typed: text, text, file: line.dataset.file, tries: 0 });
    }
    return edits.get(id);
  };
  const dirty = (edit) => edit.text !== edit.typed;

  /* saving */
  /* One request at a time for a row; where each is one of the month's, fewer. */
  const metered = () => ($("pulse")?.hasAttribute("data-metered") ? METERED : 1);
  const soon = (edit, wait = SOON_MS * metered()) => { clearTimeout(edit.timer); edit.timer = setTimeout(() => push(edit), wait); };
  /* Row after row, as they were written: so one undo takes back what was typed into one of them. */
  const goesBefore = (other, edit) => other.order && other.order < edit.order && !other.lost && !other.refused && other.theirs === undefined;
  const push = async (edit) => {
    clearTimeout(edit.timer);
    if (edit.sending || edit.theirs !== undefined) { show(edit); return; }
    if (dirty(edit) && [...edits.values()].some((other) => goesBefore(other, edit))) { soon(edit); return; }
    if (!dirty(edit)) { Object.assign(edit, { refused: "", lost: false, tries: 0, order: 0 }); keepDraft(edit.id, null); show(edit); return; }
    const sent = edit.text;
    edit.sending = true; edit.sent = sent; edit.refused = "";
    let answer = null, said = null;
    try {
      answer = await fetch(`caption/${edit.id}`, {
        method: "PUT", keepalive: true, signal: AbortSignal.timeout(UNANSWERED_MS), headers: { "content-type": "application/json" },
        body: JSON.stringify({ text: sent, before: edit.saved }),
      });
      said = await answer.json();
    } catch { said = null; }
    edit.sending = false;
    if (!said || answer.status >= 500 || answer.status === 429) {
      edit.lost = true; edit.tries += 1;
      soon(edit, Math.min(LATEST_MS, 1000 * 2 ** (edit.tries - 1)));
    } else {
      edit.lost = false; edit.tries = 0;
      if (said.conflict) edit.theirs = said.caption;
      else if (!answer.ok) edit.refused = edit.text !== sent ? "" : [said.message, said.hint].join(" ").trim();
      else {
        edit.saved = said.caption; edit.typed = sent; edit.done = true;
        const line = row(edit.id);
        if (line) { line.dataset.v = ""; put(line.querySelector(".from-cell > span"), said.from); } /* no longer as it was drawn */
      }
      if (edit.text !== sent && edit.theirs === undefined) soon(edit);
      if (!dirty(edit)) { edit.order = 0; keepDraft(edit.id, null); }
      clearTimeout(marksTimer); marksTimer = setTimeout(() => renewAll(), MARKS_MS * Math.min(5, metered()));
    }
    show(edit);
  };
  const settle = (edit, text, saved) => { Object.assign(edit, { text, theirs: undefined, refused: "", lost: false, saved }); };
  const takeTheirs = (edit) => {
    settle(edit, edit.theirs, edit.theirs); edit.typed = edit.text; edit.order = 0; keepDraft(edit.id, null);
    const line = row(edit.id);
    if (line && editor && editor.edit === edit) { editor.area.value = edit.text; grow(editor.area); editor.area.focus(); }
    else if (line) { cell(line).textContent = edit.text; cell(line).focus(); }
    show(edit);
  };
  const keepMine = (edit) => { settle(edit, edit.text, edit.theirs); edit.typed = null; push(edit); focusRow(edit.id); };
  const pushAll = () => { for (const edit of edits.values()) if (dirty(edit) && !edit.refused) push(edit); };
  const focusRow = (id) => { const line = row(id); if (line && !editor) cell(line).focus(); };

  /* what a row says about itself */
  const pieces = /[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu; /* as datasets.lint counts */
  const tokens = (text) => (text.match(pieces) || []).reduce((sum, piece) => sum + (piece.length <= 7 ? 1 : Math.ceil(piece.length / 6)), 0);
  const show = (edit) => {
    state_line();
    const line = row(edit.id);
    if (!line) return;
    count(line, edit.text);
    const mark = line.querySelector("[data-save]");
    const bad = edit.theirs !== undefined || edit.refused || edit.lost;
    mark.dataset.save = bad ? "bad" : dirty(edit) ? "saving" : edit.done ? "saved" : "";
    put(mark, bad ? "Not saved" : dirty(edit) ? "Saving" : edit.done ? "Saved" : "");
    line.classList.toggle("unsaved", Boolean(bad));
    note(line, edit);
  };
  const note = (line, edit) => {
    const kind = edit.theirs !== undefined ? "theirs" : edit.refused ? "refused" : edit.lost ? "lost" : "";
    let box = line.querySelector(".caption-note");
    const key = kind + (edit.theirs ?? "") + edit.refused;
    if (box && box.dataset.key === key) return;
    if (box) { if (box.contains(document.activeElement)) cell(line).focus(); box.remove(); }
    if (!kind) return;
    box = make("div", { className: "caption-note" }); box.dataset.key = key;
    box.setAttribute("role", "gridcell");
    const press = (label, onclick) => make("button", { type: "button", className: "button", textContent: label, onclick });
    if (kind === "theirs") {
      const theirs = make("q", { textContent: edit.theirs || "nothing" }); theirs.dir = "auto";
      box.append(make("p", {}, "Somebody else changed this caption meanwhile, to ", theirs, "."),
        make("div", { className: "actions" }, press("Keep mine", () => keepMine(edit)), press("Take theirs", () => takeTheirs(edit))));
    } else if (kind === "refused") {
      box.append(make("p", { textContent: edit.refused }));
    } else {
      box.append(make("p", { textContent: "The app does not answer. What you wrote is kept here, and sent as soon as it does." }),
        make("div", { className: "actions" }, press("Try now", () => push(edit))));
    }
    line.append(box);
    say(box.textContent);
  };
  const count = (line, text) => {
    const mark = line.querySelector("[data-count]"), longest = Number(grid.dataset.longest), most = Number(grid.dataset.tokens);
    const n = tokens(text), over = text.length > longest;
    put(mark, over ? `${text.length.toLocaleString("en")} of ${longest.toLocaleString("en")} characters` : n ? `about ${several(n, "token")}` : "");
    mark.classList.toggle("over", over || n > most);
    mark.title = n > most ? `Most text encoders read the first ${most} tokens.` : "";
  };
  const state_line = () => {
    const open = [...edits.values()].filter(dirty), bad = open.filter((e) => e.lost || e.refused || e.theirs !== undefined);
    const place = document.querySelector("[data-captions-state]");
    if (!place) return;
    put(place, bad.length ? `· ${several(bad.length, "caption")} not saved yet, kept in this browser` : open.length || edits.size ? (open.length ? "" : "· all saved") : "");
    place.classList.toggle("bad", bad.length > 0);
  };

  /* writing in a row */
  const grow = (area) => { area.style.height = "auto"; area.style.height = `${area.scrollHeight}px`; };
  const begin = (line, at = null) => {
    if (!writes() || (editor && editor.line === line)) return;
    leave();
    const edit = state(line), place = cell(line);
    const area = make("textarea", { className: "write", value: edit.text, rows: 1, spellcheck: true, dir: "auto" });
    area.setAttribute("aria-label", `Caption of ${place.dataset.name}`); area.setAttribute("enterkeyhint", "next");
    editor = { line, area, edit };
    place.replaceChildren(area); line.classList.add("writing");
    grow(area); area.focus({ preventScroll: true });
    area.setSelectionRange(at ?? area.value.length, at ?? area.value.length);
    line.scrollIntoView({ block: "nearest" });
  };
  const leave = (stay = false) => {
    if (!editor) return;
    const { line, area, edit } = editor;
    editor = null;
    edit.text = area.value;
    cell(line).textContent = edit.text; line.classList.remove("writing");
    if (stay) cell(line).focus();
    push(edit).then(() => { if (edit.done && !dirty(edit)) say("Caption saved."); });
  };
  const typed = () => {
    const { area, edit } = editor;
    edit.text = area.value; edit.refused = ""; edit.order ||= ++orders;
    keepDraft(edit.id, dirty(edit) ? { text: edit.text, before: edit.saved, file: edit.file } : null);
    grow(area); show(edit); soon(edit);
  };
  const pointed = (event, place) => {
    const at = document.caretPositionFromPoint?.(event.clientX, event.clientY);
    return at && place.contains(at.offsetNode) && at.offsetNode.nodeType === Node.TEXT_NODE ? at.offset : null;
  };

  /* moving by keyboard */
  const mark = (place) => { if (current && current !== place) current.tabIndex = -1; current = place; place.tabIndex = 0; };
  const cells = (line) => all("[data-cell]", line);
  const move = (line, by, column) => {
    const list = rows(), at = Math.max(0, Math.min(list.length - 1, list.indexOf(line) + by));
    const place = cells(list[at])[column];
    place.focus(); list[at].scrollIntoView({ block: "nearest" });
    return list[at];
  };
  const onEditorKey = (event) => {
    const { line } = editor;
    if (event.isComposing) return;
    if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); leave(true); }
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); leave(); move(line, 1, 2); }
    if (event.key === "Tab") {
      const list = rows(), next = list[list.indexOf(line) + (event.shiftKey ? -1 : 1)];
      if (!next) { leave(true); return; }
      event.preventDefault(); leave(); begin(next);
    }
  };
  const onGridKey = (event) => {
    const place = event.target.closest("[data-cell]"), line = place && place.closest(".caption");
    if (!line) return;
    const column = cells(line).indexOf(place), control = event.ctrlKey || event.metaKey, text = place.matches("[data-text]");
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: JUMP, PageUp: -JUMP };
    if (control && event.key.toLowerCase() === "z" && writes()) { event.preventDefault(); $("captions-undo")?.click(); return; }
    if (control && event.key.toLowerCase() === "a") { event.preventDefault(); window.masuka.choose(grid.id, rows().map((r) => Number(r.dataset.id))); return; }
    if (control && (event.key === "Home" || event.key === "End")) { event.preventDefault(); move(line, event.key === "Home" ? -1e6 : 1e6, column); return; }
    if (control || event.altKey) return;
    if (event.key in steps) { event.preventDefault(); move(line, steps[event.key], column); return; }
    const aside = { ArrowLeft: column - 1, ArrowRight: column + 1, Home: 0, End: cells(line).length - 1 }[event.key];
    if (aside !== undefined) { event.preventDefault(); cells(line)[aside]?.focus(); return; }
    if (!text) return;
    if (event.key === " ") { event.preventDefault(); line.querySelector("[data-pick]").click(); return; }
    if (event.key === "Enter" || event.key === "F2") { event.preventDefault(); begin(line); return; }
    if (event.key.length === 1) begin(line); /* what was typed goes on in the row */
  };

  /* pages of rows */
  const fetchPage = async (address) => {
    let answer;
    try { answer = await fetch(address, { headers: { accept: "text/html" } }); } catch { return null; }
    if (!answer.ok || !(answer.headers.get("content-type") || "").startsWith("text/html")) return null;
    const holder = make("template"); holder.innerHTML = await answer.text();
    return { nodes: [...holder.content.children], next: answer.headers.get("x-next") || "", total: Number(answer.headers.get("x-total")) };
  };
  const met = (line) => {
    const id = Number(line.dataset.id), text = cell(line).textContent, draft = drafts()[id];
    if (draft && draft.file === line.dataset.file && !edits.has(id) && writes()) {
      if (draft.text === text) keepDraft(id, null);
      else {
        const edit = state(line);
        edit.text = draft.text; cell(line).textContent = draft.text;
        if (draft.before === text) push(edit); else { edit.theirs = text; show(edit); }
      }
    }
    const edit = edits.get(id);
    if (edit && dirty(edit)) cell(line).textContent = edit.text;
    if (edit) show(edit); else count(line, text);
  };
  const load = async () => {
    clearTimeout(typedTimer);
    const mine = ++loading, asked = query();
    const address = grid.dataset.first + "?" + new URLSearchParams(asked);
    const page = await fetchPage(address);
    if (mine !== loading || !grid) return;
    leave();
    const place = grid.querySelector("[data-rows]");
    pages = [];
    if (!page) { place.replaceChildren(trouble()); return; }
    for (const edit of [...edits.values()]) if (!dirty(edit) && !edit.sending) edits.delete(edit.id);
    place.replaceChildren(); add(address, page);
    if (!page.nodes.length) place.replaceChildren(make("p", { className: "hint nothing", textContent: asked.q ? "No caption holds that." : "No caption has a problem." }));
    scope();
  };
  const trouble = () => {
    const again = make("button", { type: "button", className: "button", textContent: "Try again", onclick: load });
    return make("div", { className: "notice bad" }, make("p", { textContent: "The captions could not be fetched." }), make("div", { className: "actions" }, again));
  };
  const add = (address, page) => {
    const element = make("div", {}, ...page.nodes.filter((node) => !row(node.dataset.id)));
    element.setAttribute("role", "rowgroup");
    grid.querySelector("[data-rows]").append(element);
    const known = { address, element, stale: false, near: false };
    pages.push(known); element.page = known; near.observe(element);
    more = page.next; total = page.total;
    for (const line of element.children) met(line);
    if (!current || !current.isConnected) { const first = rows()[0]; if (first) mark(cell(first)); }
    counts();
    const sentinel = document.querySelector("[data-rows-more]");
    ends.unobserve(sentinel); if (more) ends.observe(sentinel);
  };
  const addMore = async () => {
    const mine = loading, address = more;
    more = "";
    const page = address && (await fetchPage(address));
    if (mine !== loading || !grid) return;
    if (page) add(address, page); else more = address;
  };
  const ends = new IntersectionObserver((found) => { if (found.some((entry) => entry.isIntersecting)) addMore(); }, { rootMargin: "900px" });
  const near = new IntersectionObserver((found) => {
    for (const entry of found) {
      const page = entry.target.page;
      page.near = entry.isIntersecting;
      if (page.near && page.stale) renew(page);
    }
  });
  const renewAll = () => { for (const page of pages) { page.stale = true; if (page.near) renew(page); } };
  const renew = async (page) => {
    if (page.renewing) return;
    page.stale = false; page.renewing = true;
    const mine = loading, fresh = await fetchPage(page.address);
    page.renewing = false;
    if (mine !== loading || !grid) return;
    if (!fresh) { page.stale = true; return; }
    merge(page, fresh.nodes);
    if (page === pages[pages.length - 1] && fresh.next && !more) { more = fresh.next; ends.observe(document.querySelector("[data-rows-more]")); }
    total = fresh.total; counts();
    if (page.stale && page.near) renew(page);
  };
  const merge = (page, nodes) => {
    const left = new Map([...page.element.children].map((line) => [line.dataset.id, line]));
    for (const node of nodes) {
      const mine = left.get(node.dataset.id);
      left.delete(node.dataset.id);
      if (mine) update(mine, node);
      else if (!row(node.dataset.id)) {
        const after = [...page.element.children].find((line) => Number(line.dataset.id) > Number(node.dataset.id));
        page.element.insertBefore(node, after || null); met(node);
      }
    }
    for (const [id, line] of left) {
      const edit = edits.get(Number(id));
      if (!(edit && (edit.done || dirty(edit))) && !line.contains(document.activeElement)) line.remove();
    }
  };
  const update = (mine, node) => {
    if (mine.dataset.v === node.dataset.v) return;
    mine.dataset.v = node.dataset.v;
    const theirs = cell(node).textContent, edit = edits.get(Number(mine.dataset.id));
    for (const part of [".marks-cell ul", ".from-cell > span"]) {
      const [a, b] = [mine, node].map((line) => line.querySelector(part));
      if (a.innerHTML !== b.innerHTML) a.replaceChildren(...b.childNodes);
    }
    const [seenNow, drawn] = [mine, node].map((line) => line.querySelector("figure"));
    if (seenNow.dataset.full !== drawn.dataset.full) {
      seenNow.dataset.full = drawn.dataset.full;
      seenNow.querySelector("img").src = drawn.querySelector("img").getAttribute("src");
    }
    if (edit && edit.sending) { mine.dataset.v = ""; return; } /* the answer is on its way */
    if (edit && theirs === edit.saved) return;
    if (edit && (dirty(edit) || (editor && editor.edit === edit))) { edit.theirs = theirs; show(edit); return; }
    if (edit) Object.assign(edit, { saved: theirs, typed: theirs, text: theirs, done: false });
    cell(mine).textContent = theirs;
    if (edit) show(edit); else count(mine, theirs);
  };

  /* the tools */
  const counts = () => {
    const asked = query(), filtered = asked.q || asked.only;
    put(document.querySelector("[data-captions-count]"), filtered ? `${several(total, "caption")} shown` : several(total, "caption"));
    grid.setAttribute("aria-rowcount", total + 1);
  };
  const scope = () => {
    const asked = query(), picked = chosen(grid.id).length;
    for (const button of all("[data-do='datasets-captions-edit']")) {
      const told = JSON.stringify({ ...JSON.parse(button.dataset.with), ...asked });
      if (button.dataset.with !== told) button.dataset.with = told;
    }
    const filtered = asked.q || asked.only;
    put(document.querySelector("[data-scope-said]"), picked ? `For the ${several(picked, "selected caption")}.` : `For all ${several(total, "caption")}${filtered ? " shown" : ""}.`);
    preview(); which();
  };
  const preview = () => { clearTimeout(foundTimer); foundTimer = setTimeout(lookFor, TYPED_MS); };
  const lookFor = async () => {
    const button = $("captions-replace-go"), find = $("captions-replace-find")?.value || "";
    if (!button || !grid) return;
    const picked = chosen(grid.id), asked = query();
    let found = 0;
    if (find && picked.length) found = picked.filter((id) => (edits.get(id)?.text ?? (row(id) && cell(row(id)).textContent) ?? "").includes(find)).length;
    else if (find) {
      const page = await fetch(`fragment/found/${grid.dataset.captions}?` + new URLSearchParams({ ...asked, find }));
      if (!page.ok || find !== $("captions-replace-find")?.value) return;
      found = Number(await page.text());
    }
    put(button, find && found ? `Replace in ${several(found, "caption")}` : "Replace");
    button.disabled = !(find && found);
    const among = picked.length ? `${several(picked.length, "selected caption")}` : several(total, "caption");
    put(document.querySelector("[data-found]"), !find ? "" : found ? `${found.toLocaleString("en")} of ${among} ${found === 1 ? "holds" : "hold"} it.` : `None of ${among} holds it.`);
  };
  const openTool = (name, opened) => {
    for (const section of all(".captions .tool")) section.hidden = section.id !== `captions-tool-${name}` || !opened;
    for (const button of all(".captions-bar [data-tool]")) button.setAttribute("aria-expanded", String(button.dataset.tool === name && opened));
    const section = $(`captions-tool-${name}`);
    if (!section || !opened) return;
    if (name === "tags") drawTags();
    if (name === "write") drawWriters();
    section.scrollIntoView({ block: "nearest" });
    section.querySelector("input, select, textarea")?.focus({ preventScroll: true });
    scope();
  };
  const drawTags = async () => {
    const place = document.querySelector("[data-tags]");
    if (!place) return;
    const answer = await fetch(`fragment/tags/${grid.dataset.captions}`, { headers: { accept: "text/html" } });
    if (!answer.ok || !(answer.headers.get("content-type") || "").startsWith("text/html")) return;
    const kept = place.querySelector(".tag-work");
    place.innerHTML = await answer.text();
    if (kept) place.prepend(kept);
  };
  /* who can write captions; drawn again only while nobody fills the form in */
  const drawWriters = async () => {
    const place = document.querySelector("[data-write]");
    if (!place) return;
    const answer = await fetch(`fragment/captioners/${grid.dataset.captions}`, { headers: { accept: "text/html" } });
    if (!answer.ok || !(answer.headers.get("content-type") || "").startsWith("text/html") || !place.isConnected) return;
    const text = await answer.text();
    if (place.dataset.drawn === text || place.contains(document.activeElement)) return;
    place.dataset.drawn = text; place.innerHTML = text; which();
  };
  const which = () => {
    const field = $("captions-write-which"), picked = chosen(grid.id).length;
    if (!field) return;
    const option = field.querySelector("[value='selected']");
    option.disabled = !picked;
    put(option, picked ? `The ${several(picked, "selected picture")}` : "The selected ones");
    if (picked) field.value = "selected"; else if (field.value === "selected") field.value = "all";
  };
  const workOn = (tag) => {
    const place = document.querySelector("[data-tags]"), id = Number(grid.dataset.captions);
    place.querySelector(".tag-work")?.remove();
    const press = (label, look, onclick) => make("button", { type: "button", className: `button ${look}`, textContent: label, onclick });
    const word = make("input", { type: "text", value: tag, id: "captions-tag-to" });
    const done = () => work.remove();
    const label = make("label", { className: "only-read", htmlFor: "captions-tag-to", textContent: `New words for ${tag}` });
    const rename = () => { if (word.value.trim() !== tag) send("datasets-captions-rename", { id, tag, to: word.value }); done(); };
    word.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); rename(); } });
    const work = make("div", { className: "tag-work" }, make("div", { className: "field" }, label, word), make("div", { className: "actions" },
      press("Rename", "", rename), press("Show only these", "", () => { $("captions-search").value = tag; load(); done(); }),
      press("Remove everywhere", "danger", () => { send("datasets-captions-remove", { id, tag }); done(); }), press("Close", "quiet", done)));
    place.prepend(work); word.focus(); word.select();
  };

  /* events */
  document.addEventListener("focusin", (event) => {
    const place = event.target.closest?.("#captions-grid [data-cell]");
    if (place) mark(place);
    if (editor && !editor.line.contains(event.target)) leave();
  });
  document.addEventListener("pointerdown", (event) => {
    if (!editor || editor.line.contains(event.target)) return;
    if (!event.target.closest("button, a, input, textarea, select, label, summary")) leave();
  });
  document.addEventListener("click", (event) => {
    const place = event.target.closest(".caption [data-text]");
    if (place && !event.target.closest("textarea")) { begin(place.closest(".caption"), pointed(event, place)); return; }
    const tool = event.target.closest("[data-tool]");
    if (tool) { openTool(tool.dataset.tool, !(tool.getAttribute("aria-expanded") === "true")); return; }
    if (event.target.closest("[data-captions-problems]")) { $("captions-only").checked = true; load(); return; }
    const tag = event.target.closest("[data-tag]");
    if (tag) { workOn(tag.dataset.tag); return; }
    if (event.target.closest("#captions-write-go")) starting = true;
    if (grid && event.target.closest("[data-pick], [data-unselect], [data-select-all]")) scope();
  });
  document.addEventListener("keydown", (event) => {
    if (!grid) return;
    if (editor && event.target === editor.area) onEditorKey(event);
    else if (grid.contains(event.target)) onGridKey(event);
    const tool = event.target.closest?.(".captions .tool");
    if (event.key === "Escape" && tool) {
      const name = tool.id.replace("captions-tool-", "");
      openTool(name, false); document.querySelector(`.captions-bar [data-tool="${name}"]`)?.focus();
    }
  });
  document.addEventListener("input", (event) => {
    if (editor && event.target === editor.area) typed();
    if (event.target.id === "captions-search") { clearTimeout(typedTimer); typedTimer = setTimeout(load, TYPED_MS); }
    if (event.target.id === "captions-replace-find") preview();
  });
  document.addEventListener("change", (event) => { if (event.target.id === "captions-only") load(); });
  window.addEventListener("online", pushAll);
  document.addEventListener("visibilitychange", () => { if (document.hidden) pushAll(); });
  window.addEventListener("beforeunload", (event) => {
    if ([...edits.values()].some((edit) => dirty(edit) && (edit.lost || edit.refused || edit.theirs !== undefined))) event.preventDefault();
  });
  window.masuka.after.push(() => {
    const here = document.querySelector(".parts [aria-current]"), strip = here?.parentElement;
    if (strip && strip.dataset.at !== here.textContent) {
      strip.dataset.at = here.textContent;
      strip.scrollLeft = here.offsetLeft - strip.offsetLeft - (strip.clientWidth - here.clientWidth) / 2;
    }
    const now = $("captions-grid");
    /* Drawn anew, or with its rows taken out: another set, or a role that changed. */
    const whole = !pages.length || pages[0].element.isConnected;
    if (now === grid && (!grid || (grid.dataset.captions === shownFor && whole))) return;
    if (editor) { const { edit, area } = editor; editor = null; edit.text = area.value; push(edit); }
    grid = now; shownFor = grid ? grid.dataset.captions : ""; pages = []; current = null; more = ""; loading += 1;
    if (grid) load();
  });
  window.masuka.pulsed.push((since) => {
    if (!grid || since === seen) return;
    seen = since; renewAll();
    if ($("captions-tool-tags")?.hidden === false) drawTags();
    if ($("captions-tool-write")?.hidden === false) drawWriters();
  });
  window.masuka.answered.push((answer) => {
    if (!grid) return;
    if (answer.ok && starting) openTool("write", false); /* its job shows above the table */
    starting = false;
    setTimeout(scope);
  });
})();
