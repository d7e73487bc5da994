/* The page's own script: the view in the address, actions, dialogs, selection, the viewer, uploads.
   What it shows comes from the server, escaped there; texts that it adds go through textContent. */
(() => {
  "use strict";
  const KEYS = ["tab", "character", "dataset", "run", "adapter", "section", "part", "only", "sort", "px", "base", "q", "star", "item"];
  const IDS = ["character", "dataset", "run", "adapter", "item"];
  const ID = /^\d{1,15}$/;
  const LOST_MS = 20000, UNANSWERED_MS = 30000, REPEAT_MS = 600000;
  const TABS = ["home", "datasets", "training", "images", "library", "models", "settings"];
  const $ = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, about = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(about)) {
      if (name in element && name !== "list") element[name] = value; else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const kept = (key) => { try { return JSON.parse(localStorage.getItem("masuka:" + key)); } catch { return null; } };
  const keep = (key, value) => {
    try {
      if (value === null) localStorage.removeItem("masuka:" + key);
      else localStorage.setItem("masuka:" + key, JSON.stringify(value));
    } catch { /* a browser that keeps nothing still works */ }
  };

  /* the view */
  let view = {}, since = -1, lastPulse = "", lastAnswer = "", lastLook = 0, unfinished = null, filling = null;
  let answered = Date.now();
  /* Looks are numbered and one is under way at a time: an older answer must not overwrite a newer view. */
  let looks = 0, lookingSince = 0, lookAgain = "";
  const outbox = [], pending = new Map(), keys = new Map(), older = new Map(), selected = new Map();
  const random = (bytes) => [...crypto.getRandomValues(new Uint8Array(bytes))].map((b) => b.toString(16).padStart(2, "0")).join("");
  const readAddress = () => {
    const found = {};
    for (const [key, value] of new URLSearchParams(location.search)) {
      if (KEYS.includes(key) && value && (!IDS.includes(key) || ID.test(value))) found[key] = value;
    }
    if (!TABS.includes(found.tab)) found.tab = "home";
    if (!("character" in found) && ID.test(kept("character"))) found.character = String(kept("character"));
    return found;
  };
  const writeAddress = (push) => {
    const query = new URLSearchParams(KEYS.filter((k) => view[k]).map((k) => [k, view[k]]));
    history[push ? "pushState" : "replaceState"](null, "", "?" + query);
  };
  const showTab = () => {
    if (document.body.dataset.tab !== view.tab) document.body.dataset.tab = view.tab;
    const title = view.tab[0].toUpperCase() + view.tab.slice(1) + " · masuka";
    if (document.title !== title) document.title = title;
    for (const link of all("#shell-nav a[href]")) {
      const here = new URLSearchParams(link.getAttribute("href")).get("tab") === view.tab;
      if (here === link.hasAttribute("aria-current")) continue;
      if (!here) { link.removeAttribute("aria-current"); continue; }
      link.setAttribute("aria-current", "page");
      const strip = link.parentElement;
      strip.scrollLeft = link.offsetLeft - (strip.clientWidth - link.clientWidth) / 2;
    }
  };
  const change = (wanted, push = true) => {
    const before = view.tab;
    for (const [key, value] of Object.entries(wanted)) if (KEYS.includes(key)) {
      if (value === "" || value === null || value === undefined) delete view[key]; else view[key] = String(value);
    }
    if ("character" in wanted) keep("character", view.character || null);
    if (!("item" in wanted)) delete view.item;
    if ("dataset" in wanted) for (const key of ["part", "only", "sort"]) if (!(key in wanted)) delete view[key];
    if (!TABS.includes(view.tab)) view.tab = "home";
    dropOlder(); selected.clear();
    writeAddress(push); showTab(); applySelection(); look(true);
    if (view.tab !== before) window.scrollTo(0, 0);
  };
  const look = (fresh) => {
    if (fresh) since = -1;
    if (lookingSince && Date.now() - lookingSince < LOST_MS) { lookAgain = fresh ? "fresh" : lookAgain || "soon"; return; }
    lastLook = Date.now();
    const button = $("shell-look");
    if (button) button.click();
  };
  window.masuka = {
    view: () => {
      looks += 1; lookingSince = Date.now(); lookAgain = "";
      const sums = {};
      for (const region of all("[data-region]")) {
        const name = region.dataset.region;
        if (name.startsWith("shell-") || name.startsWith(view.tab + "-")) sums[name] = region.dataset.sum;
      }
      const until = Math.min(...[...older.values()].map((o) => o.until));
      return JSON.stringify({ ...view, since, sums, look: looks, ...(Number.isFinite(until) ? { until } : {}) });
    },
    tick: () => { if (!document.hidden) look(false); }, /* coming back to the page looks at once */
    take: () => outbox.shift() || "{}",
    /* for the page's other scripts: `after` is called when the page changed, `turned` when the viewer shows another picture */
    all, make, send: (...given) => send(...given), toast: (...given) => toast(...given), ask: (...given) => ask(...given),
    kept: (key) => kept(key), keep: (key, value) => keep(key, value), random: (bytes) => random(bytes),
    renew: () => { renewOlder(); look(true); renewViewer(); },
    after: [], turned: [], pulsed: [], answered: [],
    values: (form) => values(form),
    chosen: (name) => [...(selected.get(name) || [])],
    choose: (name, ids) => { selected.set(name, new Set(ids)); applySelection(); },
  };

  /* what the server said */
  const onPulse = () => {
    const pulse = $("pulse");
    if (!pulse || pulse.dataset.n === lastPulse) return;
    lastPulse = pulse.dataset.n; answered = Date.now();
    const ended = unfinished !== null && pulse.dataset.unfinished !== unfinished;
    unfinished = pulse.dataset.unfinished;
    if (ended) dropOlder();
    if (Number(pulse.dataset.look) !== looks) { look(true); return; }
    const again = lookAgain;
    lookingSince = 0; lookAgain = "";
    banner(pulse.dataset.trouble);
    if (again === "fresh" || ended) { look(true); return; }
    since = Number(pulse.dataset.since);
    for (const tell of window.masuka.pulsed) tell(since);
    forgetGone(pulse.dataset.gone);
    if (again) look(false);
  };
  /* what is chosen here and is not there any more */
  const forgetGone = (names) => {
    if (!names) return;
    for (const name of names.split(" ")) delete view[name];
    if (!view.character) keep("character", null);
    writeAddress(false);
  };
  const onAnswer = () => {
    const element = $("answer");
    if (!element || element.dataset.n === lastAnswer) return;
    lastAnswer = element.dataset.n;
    const answer = JSON.parse(element.dataset.answer);
    for (const tell of window.masuka.answered) tell(answer);
    settle(answer.key);
    for (const [same, sent] of keys) if (sent.key === answer.key) keys.delete(same);
    if (answer.ok) {
      if (answer.say) toast(answer.say, answer.undo ? { label: "Undo", do: answer.undo[0], with: answer.undo[1] } : null);
      if (answer.clear) forget(answer.clear);
      if (answer.fetch) { const link = make("a", { href: answer.fetch, download: "" }); document.body.append(link); link.click(); link.remove(); }
      if (answer.fill && answer.fill.form) { filling = { ...answer.fill, until: Date.now() + 10000 }; fill(); }
      if (answer.show && (answer.show.link || answer.show.plain)) tellOnce(answer.show);
      selected.clear(); applySelection();
      if (Object.keys(answer.go || {}).length) { closeViewer(); change(answer.go); } else { renewOlder(); look(true); renewViewer(); }
    } else {
      const field = answer.field && answer.form ? document.querySelector(`#${answer.form} [name="${CSS.escape(answer.field)}"]`) : null;
      if (field) refuse(field, [answer.say, answer.hint].join(" ").trim(), true);
      else toast([answer.say, answer.hint].join(" ").trim(), null, true);
      look(true);
    }
  };
  const tellOnce = (told) => {
    const link = told.plain || new URL(told.link, location.href).href;
    const box = make("dialog", { className: "ask" }), head = make("h2", { textContent: told.title, id: "told-title" });
    const shown = make("input", { value: link, readOnly: true, type: "text", onfocus: () => shown.select() });
    shown.setAttribute("aria-label", told.title);
    const copy = make("button", { type: "button", className: "button primary", textContent: "Copy", onclick: async () => {
      shown.select();
      const copied = navigator.clipboard ? await navigator.clipboard.writeText(link).then(() => true, () => false) : document.execCommand("copy");
      copy.textContent = copied ? "Copied" : "Copy it by hand";
    } });
    const close = make("button", { type: "button", className: "button", textContent: "Close", onclick: () => box.close() });
    box.setAttribute("aria-labelledby", "told-title"); box.onclose = () => box.remove();
    /* A whole address is a public one; ours may be known on this machine only. */
    const near = told.link && !/^https?:/.test(told.link) && ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
    const text = near ? `${told.text} This address is this machine's own: for somebody elsewhere, open a link for collaborators first.` : told.text;
    box.append(head, make("p", { textContent: text }), make("div", { className: "field" }, shown), make("div", { className: "actions" }, copy, close));
    document.body.append(box); box.showModal(); copy.focus();
  };
  const banner = (text) => {
    let strip = $("banner");
    if (!text) { if (strip) strip.remove(); return; }
    if (!strip) { strip = make("div", { id: "banner", className: "banner", role: "alert" }); document.body.append(strip); }
    if (strip.textContent !== text) strip.textContent = text;
  };
  const toast = (text, offer, bad = false) => {
    let box = $("toasts");
    if (!box) { box = make("div", { id: "toasts" }); box.setAttribute("aria-live", "polite"); document.body.append(box); }
    const shown = make("div", { className: bad ? "toast bad" : "toast" }, make("span", { textContent: text }));
    shown.setAttribute("role", bad ? "alert" : "status");
    if (offer) shown.append(make("button", { type: "button", textContent: offer.label, onclick: () => { shown.remove(); send(offer.do, offer.with); } }));
    const away = make("button", { type: "button", textContent: "×" });
    away.setAttribute("aria-label", "Close this message"); away.onclick = () => shown.remove();
    shown.append(away);
    const host = document.querySelector("dialog[open]") || document.body;
    if (box.parentElement !== host) host.append(box);
    box.append(shown);
    setTimeout(() => shown.remove(), bad ? 15000 : offer ? 10000 : 5000);
  };

  /* actions */
  const send = (name, payload, formId = "", button = null) => {
    /* Repeating what was never answered carries the same key, so that it is not done twice. */
    const same = JSON.stringify([name, payload, formId]), before = keys.get(same);
    const key = before && Date.now() - before.at < REPEAT_MS ? before.key : random(16);
    keys.set(same, { key, at: Date.now() });
    outbox.push(JSON.stringify({ do: name, payload, form: formId, key, view }));
    if (button) button.setAttribute("aria-busy", "true");
    pending.set(key, { button, at: Date.now() });
    $("shell-perform").click();
  };
  const settle = (key) => {
    const sent = pending.get(key);
    pending.delete(key);
    if (sent && sent.button) sent.button.removeAttribute("aria-busy");
  };
  const giveUp = () => {
    for (const [key, sent] of pending) {
      if (Date.now() - sent.at < UNANSWERED_MS) continue;
      settle(key);
      toast("The app has not answered. Look whether it happened; trying again does not do it twice.", null, true);
    }
  };
  const act = async (button) => {
    if (button.closest('[aria-busy="true"]') || button.disabled) return; /* it or what it stands in */
    const payload = JSON.parse(button.dataset.with || "{}");
    const form = button.dataset.form;
    if (form) {
      const element = $(form);
      for (const field of all("[aria-invalid]", element)) allow(field);
      const wrong = all("[name]", element).find((field) => !check(field));
      if (wrong) { const box = wrong.closest("details"); if (box) box.open = true; wrong.focus(); return; }
      payload.values = values(element);
    }
    if (button.dataset.selection) payload.ids = [...(selected.get(button.dataset.selection) || [])];
    if (button.dataset.confirm) {
      const count = payload.ids ? payload.ids.length : 0;
      const told = count.toLocaleString("en");
      const named = (text) => (text || "").replace(/\{count\} (\w+)s\b/, count === 1 ? "1 $1" : `${told} $1s`).replace("{count}", told);
      if (!(await ask(named(button.dataset.confirm), named(button.dataset.detail), button.dataset.yes))) return;
    }
    send(button.dataset.do, payload, form, button);
  };
  const ask = (title, detail, yes) => new Promise((resolve) => {
    const box = make("dialog", { className: "ask" });
    const heading = make("h2", { textContent: title, id: "ask-title" });
    box.setAttribute("aria-labelledby", "ask-title");
    const no = make("button", { type: "button", className: "button", textContent: "Keep", onclick: () => box.close("no") });
    const on = make("button", { type: "button", className: "button primary", textContent: yes, onclick: () => box.close("yes") });
    box.append(heading, make("p", { textContent: detail }), make("div", { className: "actions" }, no, on));
    box.addEventListener("close", () => { box.remove(); resolve(box.returnValue === "yes"); });
    document.body.append(box); box.showModal(); no.focus();
  });

  /* forms */
  const value = (field) => field.type === "checkbox" ? field.checked
    : "list" in field.dataset ? field.value.split("\n").map((line) => line.trim()).filter(Boolean) : field.value;
  const raw = (field) => field.type === "checkbox" ? String(field.checked) : field.value;
  const values = (form) => Object.fromEntries(all("[name]", form).filter((field) => field.type !== "radio" || field.checked).map((field) => [field.name, value(field)]));
  const set = (field, text) => { if (field.type === "checkbox") field.checked = text === "true" || text === true; else field.value = text ?? ""; };
  const check = (field) => {
    allow(field);
    if (field.type !== "number" || field.value === "") {
      if (field.type === "number" && field.validity.badInput) { refuse(field, `${field.dataset.label} must be a number.`); return false; }
      return true;
    }
    const number = Number(field.value);
    const low = field.min !== "" && number < Number(field.min), high = field.max !== "" && number > Number(field.max);
    if (low || high || (field.step !== "any" && field.validity.stepMismatch)) {
      refuse(field, `${field.dataset.label} must be ${field.dataset.range}.`);
      return false;
    }
    return true;
  };
  const refuse = (field, text, focus = false) => {
    field.setAttribute("aria-invalid", "true");
    const line = $(field.id + "-error");
    if (line) { line.textContent = text; line.hidden = false; }
    const box = field.closest("details");
    if (box) box.open = true;
    if (focus) field.focus();
  };
  const allow = (field) => {
    field.removeAttribute("aria-invalid");
    const line = $(field.id + "-error");
    if (line && !line.hidden) { line.hidden = true; line.textContent = ""; }
  };
  const isChanged = (field) => "default" in field.dataset && raw(field) !== field.dataset.default;
  const remember = (form) => {
    if (form.dataset.remember) {
      const changed = {};
      for (const field of all("[name]", form)) if (!field.dataset.viewKey && isChanged(field)) changed[field.name] = raw(field);
      keep("form:" + form.dataset.remember, Object.keys(changed).length ? changed : null);
    }
    markChanged(form);
  };
  const markChanged = (form) => {
    for (const field of all("[name]", form)) field.closest(".field")?.classList.toggle("is-changed", isChanged(field));
    const note = document.querySelector(`[data-changed-of="${form.id}"]`);
    if (note) {
      const count = all("details.advanced [name]", form).filter(isChanged).length;
      const text = count ? `· ${count} changed` : "";
      if (note.textContent !== text) note.textContent = text;
    }
  };
  const recall = (form) => {
    if (form.dataset.recalled) return;
    form.dataset.recalled = "yes";
    const changed = form.dataset.remember ? kept("form:" + form.dataset.remember) || {} : {};
    const offers = (field, text) => field.tagName !== "SELECT" || [...field.options].some((o) => o.value === text);
    for (const field of all("[name]", form)) {
      if (field.dataset.viewKey) set(field, field.dataset.default);
      else if (field.name in changed && offers(field, changed[field.name])) set(field, changed[field.name]);
    }
    markChanged(form); label(form); fill();
  };
  const fill = () => {
    const form = filling && $(filling.form);
    if (!form) return;
    if (Date.now() > filling.until) { filling = null; return; }
    if (filling.remember && form.dataset.remember !== filling.remember) return; /* the form of another model */
    for (const field of all("[name]", form)) if (field.name in filling.values && !field.dataset.viewKey) set(field, filling.values[field.name]);
    remember(form); label(form);
  };
  const forget = (id) => {
    const form = $(id);
    if (!form) return;
    for (const field of all("[name]", form)) { set(field, field.dataset.default || ""); allow(field); }
    remember(form);
  };
  const label = (form) => {
    for (const button of all("[data-counts]", form)) {
      const field = form.querySelector(`[name="${button.dataset.counts}"]`);
      const count = Math.max(1, Number(field && field.value) || 1);
      const text = count === 1 ? button.dataset.one : button.dataset.many.replace("{n}", count);
      if (button.textContent !== text) button.textContent = text;
    }
  };

  /* selection */
  const applySelection = () => {
    for (const grid of all("[data-grid]")) {
      const name = grid.dataset.grid, chosen = selected.get(name) || new Set();
      grid.classList.toggle("selecting", chosen.size > 0);
      for (const box of all("[data-pick]", grid)) {
        const on = chosen.has(Number(box.dataset.pick));
        if (box.checked !== on) box.checked = on;
        box.closest("[data-id]")?.classList.toggle("selected", on);
      }
      const bar = document.querySelector(`[data-selection-of="${name}"]`);
      if (bar) {
        bar.hidden = chosen.size === 0;
        const text = `${chosen.size.toLocaleString("en")} selected`;
        if (bar.querySelector(".count").textContent !== text) bar.querySelector(".count").textContent = text;
      }
    }
  };
  let lastPicked = null;
  const pick = (box, shift) => {
    const grid = box.closest("[data-grid]"), name = grid.dataset.grid;
    const chosen = selected.get(name) || new Set(), boxes = all("[data-pick]", grid).filter((each) => !each.closest("[hidden]"));
    const at = boxes.indexOf(box), from = shift && lastPicked ? boxes.findIndex((b) => b.dataset.pick === lastPicked) : at;
    for (const each of boxes.slice(Math.min(at, from), Math.max(at, from) + 1)) {
      if (box.checked) chosen.add(Number(each.dataset.pick)); else chosen.delete(Number(each.dataset.pick));
    }
    lastPicked = box.dataset.pick;
    selected.set(name, chosen); applySelection();
  };

  /* the viewer */
  let tiles = [], at = 0, linked = "";
  const viewer = () => {
    let box = $("viewer");
    if (box) return box;
    const image = make("img", { alt: "" });
    const back = make("button", { type: "button", className: "nav back", textContent: "‹", onclick: () => turn(-1) });
    const on = make("button", { type: "button", className: "nav on", textContent: "›", onclick: () => turn(1) });
    const close = make("button", { type: "button", className: "close", textContent: "×", onclick: () => box.close() });
    back.setAttribute("aria-label", "Previous picture"); on.setAttribute("aria-label", "Next picture"); close.setAttribute("aria-label", "Close");
    box = make("dialog", { id: "viewer" }, make("div", { className: "stage" }, back, image, on), make("aside", { className: "region" }), close);
    box.setAttribute("aria-label", "Picture");
    box.addEventListener("keydown", (event) => {
      if (event.target.matches("textarea, input, select") || box.dataset.busy) return;
      if (event.key === "ArrowLeft") turn(-1);
      if (event.key === "ArrowRight") turn(1);
    });
    box.addEventListener("close", () => {
      if (view.item && view.section !== "queue") { delete view.item; writeAddress(false); }
      const tile = tiles[at], again = tile?.isConnected ? tile : document.querySelector(`#page-${view.tab} .tile[data-id="${CSS.escape(tile?.dataset.id || "")}"]`);
      again?.querySelector("[data-open]")?.focus();
    });
    document.body.append(box);
    return box;
  };
  const open = (tile) => {
    tiles = all(".tile[data-full]", tile.closest(".grid, .strip, [data-grid]") || document).filter((each) => !each.hidden);
    at = tiles.indexOf(tile);
    const box = viewer();
    if (!box.open) box.showModal();
    turn(0);
  };
  const turn = async (by) => {
    if (!tiles.length) return;
    at = (at + by + tiles.length) % tiles.length;
    const tile = tiles[at], box = viewer(), image = box.querySelector(".stage img");
    if (view.tab === "library" && tile.dataset.id) { view.item = linked = tile.dataset.id; writeAddress(false); }
    image.src = tile.dataset.full; image.alt = tile.querySelector("img")?.alt || "";
    const side = box.querySelector("aside");
    if (!tile.dataset.side) {
      side.replaceChildren(make("p", { className: "prompt", textContent: image.alt }));
      return;
    }
    side.setAttribute("aria-busy", "true"); /* until then it is about the picture before: nothing in it may be done */
    const text = await sideOf(tile);
    if (tiles[at] !== tile) return;
    side.removeAttribute("aria-busy");
    drawSide(side, text);
    for (const tell of window.masuka.turned) tell(box, tile);
    after();
  };
  /* its side's HTML; null where it is gone, undefined where the app does not answer */
  const sideOf = (tile) => fetch(tile.dataset.side, { headers: { accept: "text/html" } }).then(piece, () => undefined);
  const drawSide = (side, text) => {
    const focused = side.contains(document.activeElement) ? document.activeElement : null;
    if (text) side.innerHTML = text;
    else side.textContent = text === undefined ? "The app does not answer. Open the picture again in a moment." : "This is gone.";
    if (focused) ((focused.id && $(focused.id)) || $("viewer").querySelector(".nav.on")).focus();
  };
  /* HTML that the server drew; null for anything else, a picture that holds markup too */
  const piece = async (answer) =>
    answer.ok && (answer.headers.get("content-type") || "").startsWith("text/html") ? answer.text() : null;
  /* a link to one picture opens it, wherever in the list it stands */
  const openLinked = () => {
    if (view.tab !== "library" || !view.item || view.section === "queue" || linked === view.item) return;
    if (!document.querySelector("[data-region='library-body']")) return;
    linked = view.item;
    const tile = document.querySelector(`#page-library .tile[data-id="${CSS.escape(view.item)}"]`);
    if (tile) { open(tile); return; }
    const figure = make("figure", {}, make("img", { alt: "" }));
    Object.assign(figure.dataset, { id: view.item, full: `media/item/${view.item}`, side: `fragment/item/${view.item}` });
    tiles = [figure]; at = 0;
    const box = viewer();
    if (!box.open) box.showModal();
    turn(0);
  };
  /* After an action the picture that is shown large may be another, and so may what is said of it. */
  const renewViewer = async () => {
    const box = $("viewer"), tile = tiles[at];
    if (!box || !box.open || !tile || !tile.dataset.side || box.contains(document.activeElement) && document.activeElement.matches("textarea")) return;
    const text = await sideOf(tile);
    if (tiles[at] !== tile || !box.open || text === undefined) return;
    drawSide(box.querySelector("aside"), text);
    for (const tell of window.masuka.turned) tell(box, tile);
    after();
  };
  const closeViewer = () => { const box = $("viewer"); if (box && box.open) box.close(); };

  /* older pages of a list */
  const sentinels = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) fetchOlder(entry.target);
  }, { rootMargin: "600px" });
  const fetchOlder = async (mark) => {
    const grid = mark.previousElementSibling, name = grid && grid.dataset.grid;
    if (!name || mark.dataset.loading) return;
    const known = older.get(name);
    const next = known ? known.next : mark.dataset.more;
    if (!next) return;
    mark.dataset.loading = "yes";
    const dropped = drops;
    const tilesNow = all("[data-id]", grid);
    const entry = known || { nodes: [], first: next, until: Number(tilesNow[tilesNow.length - 1]?.dataset.id) };
    const page = await olderPage(next);
    delete mark.dataset.loading;
    if (page && (dropped !== drops || older.get(name) !== known)) { /* what was shown then is gone: ask again */
      sentinels.unobserve(mark); sentinels.observe(mark);
      return;
    }
    if (!page) return;
    entry.nodes.push(...page.nodes); entry.next = page.next;
    older.set(name, entry); grid.append(...page.nodes); applySelection();
    sentinels.unobserve(mark); if (entry.next) sentinels.observe(mark);
  };
  const olderPage = async (address) => {
    const answer = await fetch(address, { headers: { accept: "text/html" } }), text = await piece(answer);
    if (text === null) return null;
    const holder = make("template"); holder.innerHTML = text;
    return { nodes: [...holder.content.children], next: answer.headers.get("x-next") || "" };
  };
  /* After an action the older pages are fetched again, in place, so that nobody loses the place. */
  const renewOlder = async () => {
    for (const [name, entry] of [...older]) {
      const nodes = [];
      let next = entry.first;
      while (next && (nodes.length < entry.nodes.length)) {
        const page = await olderPage(next);
        if (!page || older.get(name) !== entry) return;
        nodes.push(...page.nodes); next = page.next;
      }
      for (const node of entry.nodes) node.remove();
      const renewed = { ...entry, nodes, next };
      older.set(name, renewed);
      document.querySelector(`[data-grid="${name}"]`)?.append(...nodes);
      applySelection();
    }
  };
  let drops = 0;
  const dropOlder = () => {
    drops += 1;
    for (const entry of older.values()) {
      for (const node of entry.nodes) node.remove();
      if (entry.place) entry.place.style.minHeight = "";
    }
    older.clear();
    for (const mark of all("[data-more]")) { sentinels.unobserve(mark); delete mark.dataset.watched; }
  };
  const keepOlder = () => {
    for (const [name, entry] of older) {
      const grid = document.querySelector(`[data-grid="${name}"]`);
      if (!grid) continue;
      if (entry.nodes.length && entry.nodes.some((node) => node.parentElement !== grid)) grid.append(...entry.nodes);
      /* what moved into the first page is there already */
      const first = new Set(all("[data-id]", grid).filter((tile) => !entry.nodes.includes(tile)).map((tile) => tile.dataset.id));
      for (const node of entry.nodes.filter((n) => first.has(n.dataset.id))) { node.remove(); entry.nodes.splice(entry.nodes.indexOf(node), 1); }
      /* While its first page is drawn anew, the list stays as tall as it was, or the page would jump up. */
      entry.place = $(grid.closest("[data-region]")?.dataset.region);
      if (entry.place) { entry.place.style.minHeight = ""; entry.place.style.minHeight = `${entry.place.offsetHeight}px`; }
    }
    for (const mark of all("[data-more]")) if (!mark.dataset.watched) { mark.dataset.watched = "yes"; sentinels.observe(mark); }
  };

  /* What has the keyboard keeps it when its region is drawn anew; where it is gone, what stands in its place gets it. */
  let held = null;
  const WITH = ["data-do", "data-do-change", "data-view-key"], HAS = ["data-open", "data-pick", "data-unfold", "data-go", "data-hide", "data-editor"];
  const kindOf = (element) => element.localName + WITH.filter((name) => element.hasAttribute(name)).map((name) => `[${name}="${element.getAttribute(name)}"]`).join("")
    + HAS.filter((name) => element.hasAttribute(name)).map((name) => `[${name}]`).join("");
  const marksOf = (element) => ["id", "data-with", "data-pick", "data-unfold", "href"].map((name) => element.getAttribute(name))
    .concat(element.closest("[data-id]")?.dataset.id).join("\n");
  document.addEventListener("pointerdown", () => { held = null; }, true);
  document.addEventListener("focusin", ({ target }) => {
    const region = target.closest("[data-region]"), kind = region && kindOf(target);
    held = region && { element: target, region: region.dataset.region, kind, marks: marksOf(target), at: all(kind, region).indexOf(target) };
  });
  const holdOn = () => {
    if (!held || document.activeElement !== document.body || document.querySelector("dialog[open]")) return;
    let place = held.element;
    if (!place.isConnected) {
      const region = document.querySelector(`[data-region="${held.region}"]`), like = region ? all(held.kind, region).filter((each) => !each.closest("[hidden]")) : [];
      place = like.find((each) => marksOf(each) === held.marks) || like[Math.min(held.at, like.length - 1)];
    }
    if (place) place.focus({ preventScroll: true });
  };

  /* events */
  document.addEventListener("click", (event) => {
    const target = event.target;
    const doing = target.closest("[data-do]");
    if (doing) { event.preventDefault(); act(doing); return; }
    const link = target.closest("a[data-go]");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
      event.preventDefault(); closeViewer();
      for (const menu of all("details.menu[open]")) menu.open = false;
      change(Object.fromEntries(new URLSearchParams(link.getAttribute("href"))));
      return;
    }
    const box = target.closest("[data-pick]");
    if (box) { pick(box, event.shiftKey); return; }
    if (target.closest(".pick")) return;
    const opener = target.closest("[data-open]");
    if (opener) {
      const tile = opener.closest(".tile");
      const chooser = tile.querySelector("[data-pick]");
      if (chooser && (event.shiftKey || tile.closest(".selecting"))) { chooser.checked = !chooser.checked; pick(chooser, event.shiftKey); }
      else open(tile);
      return;
    }
    const clear = target.closest("[data-unselect]");
    if (clear) { selected.delete(clear.dataset.unselect); applySelection(); return; }
    const everything = target.closest("[data-select-all]");
    if (everything) {
      const name = everything.dataset.selectAll;
      selected.set(name, new Set(all(`[data-grid="${name}"] [data-pick]`).filter((b) => !b.closest("[hidden]")).map((b) => Number(b.dataset.pick)))); applySelection(); return;
    }
    const reset = target.closest("[data-reset]");
    if (reset) {
      const form = $(reset.dataset.reset);
      for (const field of all("details.advanced [name]", form)) { set(field, field.dataset.default || ""); allow(field); }
      remember(form); return;
    }
    for (const menu of all("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
  });
  document.addEventListener("submit", (event) => {
    if (event.target.getAttribute("action")) return; /* the way out is a plain form */
    event.preventDefault();
    const button = $(event.target.dataset.submit || "");
    if (button) act(button);
  });
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form.form");
    if (form) { remember(form); label(form); if (event.target.getAttribute("aria-invalid")) check(event.target); }
  });
  let typing = 0;
  document.addEventListener("change", (event) => {
    const field = event.target;
    if (field.matches("input[type=file][data-into]")) {
      const into = $(field.dataset.into);
      if (field.files[0]) field.files[0].slice(0, 200000).text().then((text) => { if (into) { into.value = text; check(into); } });
      field.value = "";
      return;
    }
    if (field.matches("[data-view-key]")) { if (check(field)) change({ [field.dataset.viewKey]: field.type === "checkbox" ? (field.checked ? "1" : "") : field.value }); return; }
    if (field.closest("form.form")) check(field);
  });
  document.addEventListener("input", (event) => {
    const field = event.target;
    if (!field.matches("input[data-view-key][type=search]")) return;
    clearTimeout(typing);
    typing = setTimeout(() => change({ [field.dataset.viewKey]: field.value }, false), 300);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const form = event.target.closest("form.form");
      const button = form && $(form.dataset.submit || "");
      if (button) { event.preventDefault(); act(button); }
    }
    if (event.key === "Escape") for (const menu of all("details.menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
  });
  // A picture that still comes from the vault is asked for again, ever less often.
  document.addEventListener("error", ({ target }) => {
    const tries = Number(target.dataset?.tries || 0);
    if (target.tagName !== "IMG" || target.hasAttribute("onerror") || tries > 5) return;
    target.dataset.tries = tries + 1;
    setTimeout(() => { target.src = target.src; }, 2000 * 2 ** tries);
  }, true);
  document.addEventListener("toggle", (event) => {
    if (event.target.matches("details[id]")) keep("open:" + event.target.id.replace(/\d+/g, ""), event.target.open ? true : null);
  }, true);
  window.addEventListener("popstate", () => { view = readAddress(); showTab(); dropOlder(); selected.clear(); look(true); });
  window.addEventListener("focus", () => { if (Date.now() - lastLook > 2000) look(false); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(false); });
  const lost = "The app does not answer. What runs goes on; this page comes back by itself.";
  const realFetch = window.fetch.bind(window);
  window.fetch = async (...given) => {
    let answer = await realFetch(...given);
    /* Too much in a minute: what can be sent again waits its turn. */
    for (let tries = 0; answer.status === 429 && tries < 3 && !(given[0] instanceof Request); tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(15, Number(answer.headers.get("retry-after")) || 1)));
      answer = await realFetch(...given);
    }
    if (answer.status === 401) location.assign("login");
    return answer;
  };
  setInterval(async () => {
    giveUp();
    if (lookingSince && Date.now() - lookingSince > LOST_MS) look(true);
    if (document.hidden || Date.now() - answered < 45000) return;
    const alive = await realFetch("healthz").then((answer) => answer.ok, () => false);
    if (alive) look(true); else banner(lost);
  }, 5000);

  /* after each change of the page */
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
  const localTimes = () => {
    for (const element of all("time[datetime]:not([data-local])")) {
      const date = new Date(element.dateTime), today = date.toDateString() === new Date().toDateString();
      element.dataset.local = "yes"; element.title = date.toLocaleString();
      element.textContent = today ? clock.format(date) : `${day.format(date)} ${clock.format(date)}`;
    }
  };
  const after = () => {
    onPulse(); onAnswer(); showTab(); localTimes(); keepOlder(); applySelection(); openLinked(); holdOn();
    for (const form of all("form.form")) recall(form);
    for (const tell of window.masuka.after) tell();
    for (const box of all("details[id]:not([data-met])")) { box.dataset.met = "yes"; if (kept("open:" + box.id.replace(/\d+/g, ""))) box.open = true; }
  };
  let scheduled = false, whole = false;
  /* Most looks change nothing but the pulse: then there is nothing else to go through. */
  const isPulse = (record) => (record.target.closest ? record.target : record.target.parentElement)?.closest("#shell-pulse");
  /* Gradio adds its style sheets while it loads; ours has the last word. */
  const style = $("masuka-style");
  const styleLast = () => { if (style && document.head.lastElementChild !== style) document.head.append(style); };
  new MutationObserver(styleLast).observe(document.head, { childList: true });
  const start = () => {
    styleLast();
    view = readAddress(); writeAddress(false); document.body.dataset.tab = view.tab;
    new MutationObserver((records) => {
      whole = whole || !records.every(isPulse);
      if (scheduled) return;
      scheduled = true;
      queueMicrotask(() => { const all = whole; scheduled = whole = false; if (all) after(); else onPulse(); });
    }).observe(document.body, { childList: true, subtree: true, characterData: false, attributes: true, attributeFilter: ["data-sum", "data-n", "data-remember"] });
    after();
  };
  if (document.body) start(); else document.addEventListener("DOMContentLoaded", start);
})();
