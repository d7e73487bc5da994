/* A data set's pictures: how they are sent, shown large and edited. Builds on what masuka.js offers;
   what it shows comes from the server, escaped there; texts that it adds go through textContent. */
(() => {
  "use strict";
  const { all, make, send, toast, kept, keep, random } = window.masuka;
  const AT_ONCE = 3, TRIES = 4, MOST_TOLD = 3;

  /* uploads: files, and whole folders with where each file lay in them */
  const sendings = []; /* one goes out at a time, the others wait behind it */
  const upload = (zone, found) => {
    if (!found.length) return;
    sendings.push({ dataset: zone.dataset.upload, action: zone.dataset.uploadDo || "datasets-upload", found });
    if (sendings.length === 1) sendAll(); else toast(`${files(found.length)} will be sent next.`);
  };
  const files = (count) => `${count.toLocaleString("en")} ${count === 1 ? "file" : "files"}`;
  const sendAll = async () => {
    for (; sendings.length; sendings.shift()) await sendBatch(sendings[0]);
    showSending();
  };
  const sendBatch = async (sending) => {
    const { dataset, action, found } = sending, batch = random(12);
    const loaded = new Array(found.length).fill(0), refused = [], began = Date.now();
    let next = 0, done = 0;
    sending.total = found.reduce((sum, { file }) => sum + file.size, 0) || 1;
    const show = () => {
      const { total } = sending, sent = loaded.reduce((sum, bytes) => sum + bytes, 0), seconds = (Date.now() - began) / 1000;
      const left = sent > 0 && seconds > 3 ? ` · ${howLong((total - sent) * seconds / sent)} left` : "";
      Object.assign(sending, { sent, said: `Sending ${Math.min(done + 1, found.length).toLocaleString("en")} of ${files(found.length)}${left}` });
      showSending();
    };
    const sender = async () => {
      while (next < found.length) {
        const index = next, { file, folder } = found[next];
        next += 1;
        const query = new URLSearchParams(folder ? { name: file.name, folder } : { name: file.name });
        const problem = await put(`upload/${batch}/${index}?${query}`, file, (bytes) => { loaded[index] = bytes; show(); });
        loaded[index] = file.size; done += 1; show();
        if (problem) refused.push(`${file.name}: ${problem}`);
      }
    };
    show();
    await Promise.all(Array.from({ length: AT_ONCE }, sender));
    for (const text of refused.slice(0, MOST_TOLD)) toast(text, null, true);
    if (refused.length > MOST_TOLD) toast(`${refused.length - MOST_TOLD} more files did not arrive.`, null, true);
    if (refused.length < found.length) send(action, { id: Number(dataset), batch });
  };
  /* How it goes is told where it is dropped; wherever else the person went, in the corner. */
  const tell = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const showSending = () => {
    const now = sendings[0], zones = now?.said ? all(`.drop[data-upload="${now.dataset}"]`) : [];
    for (const zone of all(".drop[data-sending]")) if (!zones.includes(zone)) {
      const line = zone.querySelector("[data-upload-state]");
      zone.querySelector("progress")?.remove(); tell(line, line.dataset.idle); delete zone.dataset.sending;
    }
    for (const zone of zones) {
      let bar = zone.querySelector("progress");
      if (!bar) { bar = make("progress", {}); bar.setAttribute("aria-label", "Upload"); zone.append(bar); }
      zone.dataset.sending = "yes"; bar.max = now.total; bar.value = now.sent;
      tell(zone.querySelector("[data-upload-state]"), now.said);
    }
    const away = now?.said && !zones.some((zone) => zone.checkVisibility());
    let box = document.getElementById("sending");
    if (!away) { box?.remove(); return; }
    if (!box) { box = make("div", { id: "sending", className: "toast" }, make("span")); box.setAttribute("role", "status"); document.body.append(box); }
    tell(box.firstChild, now.said);
  };
  window.masuka.after.push(() => { if (sendings.length) showSending(); });
  window.addEventListener("beforeunload", (event) => { if (sendings.length) event.preventDefault(); });
  const howLong = (seconds) => seconds < 60 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
  const wait = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
  const put = async (address, file, progress) => {
    let problem = "";
    for (let tries = 0; tries < TRIES; tries += 1) {
      const answer = await putOnce(address, file, progress);
      if (!answer.again) return answer.problem;
      problem = answer.problem;
      await wait(1000 * (answer.again + tries));
    }
    return problem;
  };
  const putOnce = (address, file, progress) => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("PUT", address);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onload = () => {
      if (request.status < 300) { resolve({ problem: "" }); return; }
      const again = request.status === 429 ? Math.min(30, Number(request.getResponseHeader("retry-after")) || 5) : request.status >= 502 ? 1 : 0;
      try { const said = JSON.parse(request.responseText); resolve({ problem: `${said.message} ${said.hint}`, again }); }
      catch { resolve({ problem: "It did not arrive. Try again.", again }); }
    };
    request.onerror = () => resolve({ problem: "The connection was lost. Try again.", again: 1 });
    request.send(file);
  });
  const chosen = (files) => [...files].map((file) => {
    const path = (file.webkitRelativePath || "").split("/");
    return { file, folder: path.slice(0, -1).join("/") };
  });
  const hidden = (name) => name.startsWith(".") || name === "__MACOSX" || name === "Thumbs.db";
  const walk = async (entry, folder, found) => {
    if (hidden(entry.name)) return;
    if (entry.isFile) {
      const file = await new Promise((resolve) => { entry.file(resolve, () => resolve(null)); });
      if (file) found.push({ file, folder });
      return;
    }
    const reader = entry.createReader(), within = folder ? `${folder}/${entry.name}` : entry.name;
    for (;;) { /* a reader gives at most a hundred at a time */
      const some = await new Promise((resolve) => { reader.readEntries(resolve, () => resolve([])); });
      if (!some.length) return;
      for (const each of some) await walk(each, within, found);
    }
  };
  const dropped = async (transfer) => {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
    if (!entries.length) return chosen(transfer.files);
    const found = [];
    for (const entry of entries) await walk(entry, "", found);
    return found;
  };
  const hasFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  /* Where the set is shown, its whole page takes what is dropped. */
  const zoneOf = (target) => (target.closest && target.closest(".drop"))
    || (document.querySelector("dialog[open]") ? null : all(".drop[data-whole-page]").find((zone) => zone.closest(".page")?.id === `page-${document.body.dataset.tab}`));
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, (event) => {
    const zone = zoneOf(event.target);
    for (const each of all(".drop.over")) if (each !== zone || kind !== "dragover") each.classList.remove("over");
    document.body.classList.toggle("dropping", Boolean(zone) && kind === "dragover");
    if (!zone || !hasFiles(event)) return;
    event.preventDefault();
    if (kind === "dragover") zone.classList.add("over");
    if (kind !== "drop") return;
    const box = zone.closest("details");
    if (box) box.open = true;
    dropped(event.dataTransfer).then((found) => upload(zone, found));
  });
  document.addEventListener("change", (event) => {
    const field = event.target;
    if (field.matches(".drop input[type=file], [data-upload-folder]")) {
      const zone = field.closest(".drop") || field.closest(".adding").querySelector(".drop");
      upload(zone, chosen(field.files)); field.value = "";
    }
    if (field.matches("[data-do-change]")) send(field.dataset.doChange, { ...JSON.parse(field.dataset.with || "{}"), value: field.value });
  });

  /* copies lie behind the better picture until they are asked for */
  const unfolded = new Set();
  const fold = () => {
    for (const button of all("[data-unfold]")) {
      const on = unfolded.has(button.dataset.unfold);
      if ((button.getAttribute("aria-expanded") === "true") !== on) button.setAttribute("aria-expanded", String(on));
    }
    for (const tile of all(".tile[data-behind]")) {
      const on = unfolded.has(tile.dataset.behind);
      if (tile.hidden === on) tile.hidden = !on;
    }
  };
  window.masuka.after.push(fold);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-unfold]");
    if (!button) return;
    const id = button.dataset.unfold;
    if (!unfolded.delete(id)) unfolded.add(id);
    fold();
  });

  /* what was put away stays away */
  const hideAgain = () => {
    for (const button of all("[data-hide]")) {
      const box = document.getElementById(button.dataset.hide);
      if (box && !box.hidden && kept("away:" + button.dataset.hide)) box.hidden = true;
    }
  };
  window.masuka.after.push(hideAgain);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-hide]");
    if (!button) return;
    keep("away:" + button.dataset.hide, true); hideAgain();
  });

  /* one picture: keys, and its crop and turn with a live preview */
  const viewer = () => document.getElementById("viewer");
  let cut = null; /* the tool while it is open */
  const sideOf = () => viewer()?.querySelector('aside:not([aria-busy="true"]) .picture-side');
  window.masuka.turned.push((box, tile) => {
    leave();
    const side = sideOf(), image = box.querySelector(".stage > img");
    if (!side || !image) return;
    if (image.getAttribute("src") !== side.dataset.shown) image.src = side.dataset.shown;
    tile.dataset.full = side.dataset.shown;
    const field = captionOf(side), typed = unsaved.get(side.dataset.picture);
    if (!field || typed === undefined) return;
    if (same(typed.text, field.value)) { unsaved.delete(side.dataset.picture); return; }
    if (!same(typed.was, field.value)) theirs(side, field.value);
    field.value = typed.text; notSaved(side, true);
  });
  /* What was refused may have been changed by somebody else: the side then shows what is there now. */
  window.masuka.answered.push((answer) => { if (!answer.ok && !answer.field && sideOf()) window.masuka.renew(); });
  /* A caption that was typed and not saved yet is there again when its picture is. */
  const unsaved = new Map();
  const captionOf = (side) => side.querySelector("textarea[name=caption]");
  const same = (one, other) => one.trim().replace(/\s+/g, " ") === other.trim().replace(/\s+/g, " ");
  const theirs = (side, text) => {
    const line = side.querySelector("[data-theirs]");
    line.textContent = ` Somebody else wrote meanwhile: “${text}” Saving puts yours in its place.`; line.hidden = false;
  };
  const notSaved = (side, shown) => { const line = side.querySelector("[data-unsaved]"); if (line) line.hidden = !shown; };
  document.addEventListener("input", (event) => {
    const side = event.target.closest(".picture-side");
    if (!side || event.target !== captionOf(side)) return;
    if (same(event.target.value, event.target.defaultValue)) unsaved.delete(side.dataset.picture);
    else unsaved.set(side.dataset.picture, { was: event.target.defaultValue, ...unsaved.get(side.dataset.picture), text: event.target.value });
    notSaved(side, unsaved.has(side.dataset.picture));
  });
  const leave = () => {
    if (!cut) return;
    cut.frame.remove(); cut = null;
    const box = viewer(), side = sideOf(), editor = box.querySelector(".picture-editor");
    box.classList.remove("editing"); delete box.dataset.busy;
    window.removeEventListener("resize", place);
    if (side) side.hidden = false;
    if (editor) editor.hidden = true;
    document.getElementById("picture-edit")?.focus();
  };
  const GRIPS = [["left", "top"], ["mid", "top"], ["right", "top"], ["right", "mid"], ["right", "bottom"], ["mid", "bottom"], ["left", "bottom"], ["left", "mid"]];
  const CURSORS = ["nwse-resize", "ns-resize", "nesw-resize", "ew-resize", "nwse-resize", "ns-resize", "nesw-resize", "ew-resize"];
  const begin = () => {
    const box = viewer(), side = sideOf(), editor = box?.querySelector(".picture-editor");
    if (!side || !editor || cut || box.dataset.busy) return;
    const recipe = JSON.parse(side.dataset.recipe), image = make("img", { src: side.dataset.original, alt: "" });
    const keptBox = make("div", { className: "kept", tabIndex: 0 });
    keptBox.setAttribute("role", "group");
    keptBox.setAttribute("aria-label", "What is kept. Arrows move it, with Shift they change its size.");
    const shade = make("div", { className: "shade" });
    const frame = make("div", { className: "cutter" }, make("div", { className: "pane" }, image, shade), keptBox);
    for (const [at, [x, y]] of GRIPS.entries()) {
      const grip = make("span", { className: "grip" });
      Object.assign(grip.style, { cursor: CURSORS[at], left: { left: "0", mid: "50%", right: "100%" }[x], top: { top: "0", mid: "50%", bottom: "100%" }[y] });
      grip.dataset.x = x; grip.dataset.y = y; keptBox.append(grip);
    }
    cut = {
      frame, image, shade, keptBox, id: Number(side.dataset.picture), width: Number(side.dataset.width), height: Number(side.dataset.height),
      turn: recipe.turn || 0, straighten: recipe.straighten || 0, flip: Boolean(recipe.flip), shape: 0,
      crop: recipe.crop ? recipe.crop.map(Number) : [0, 0, 1, 1],
    };
    box.classList.add("editing"); box.dataset.busy = "yes";
    side.hidden = true; editor.hidden = false;
    box.querySelector(".stage").append(frame);
    document.getElementById("picture-tool-straighten").value = cut.straighten;
    document.getElementById("picture-tool-shape").value = "";
    keptBox.addEventListener("pointerdown", drag);
    keptBox.addEventListener("keydown", byKey);
    window.addEventListener("resize", place);
    box.scrollTop = 0; place(); keptBox.focus({ preventScroll: true });
  };
  /* The largest upright rectangle of the same shape in a rectangle that is turned a little. */
  const inner = (width, height, degrees) => {
    const angle = Math.abs(degrees) * Math.PI / 180, c = Math.cos(angle), s = Math.sin(angle);
    return Math.min(width / (width * c + height * s), height / (width * s + height * c));
  };
  const place = () => {
    if (!cut) return;
    const stage = viewer().querySelector(".stage"), about = getComputedStyle(stage);
    const room = [stage.clientWidth - parseFloat(about.paddingLeft) - parseFloat(about.paddingRight), stage.clientHeight - parseFloat(about.paddingTop) - parseFloat(about.paddingBottom)];
    const [width, height] = cut.turn % 180 ? [cut.height, cut.width] : [cut.width, cut.height];
    const scale = Math.min(room[0] / width, room[1] / height), shown = [width * scale, height * scale];
    const per = scale / inner(width, height, cut.straighten);
    Object.assign(cut.frame.style, {
      width: `${shown[0]}px`, height: `${shown[1]}px`, left: `${parseFloat(about.paddingLeft) + (room[0] - shown[0]) / 2}px`, top: `${parseFloat(about.paddingTop) + (room[1] - shown[1]) / 2}px`,
    });
    Object.assign(cut.image.style, {
      width: `${cut.width * per}px`, height: `${cut.height * per}px`,
      transform: `translate(-50%, -50%) ${cut.flip ? "scaleX(-1) " : ""}rotate(${cut.turn + cut.straighten}deg)`,
    });
    const [left, top, right, bottom] = onScreen(cut.crop);
    for (const box of [cut.keptBox, cut.shade]) Object.assign(box.style, { left: `${left * 100}%`, top: `${top * 100}%`, width: `${(right - left) * 100}%`, height: `${(bottom - top) * 100}%` });
    viewer().querySelector('[data-editor="flip"]').setAttribute("aria-pressed", String(cut.flip));
    viewer().querySelector(".picture-editor output").textContent = `${cut.straighten}°`;
  };
  /* The mirror comes last in a recipe, so what is seen mirrored is kept unmirrored. */
  const onScreen = ([left, top, right, bottom]) => cut.flip ? [1 - right, top, 1 - left, bottom] : [left, top, right, bottom];
  const SMALLEST = 0.05;
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  /* The frame's width by its height, in the parts that a crop is made of. */
  const ratio = () => {
    const [width, height] = cut.turn % 180 ? [cut.height, cut.width] : [cut.width, cut.height];
    return cut.shape ? cut.shape * height / width : 0;
  };
  const resized = (from, x, y, dx, dy) => {
    let [left, top, right, bottom] = from;
    if (x === "left") left = within(left + dx, 0, right - SMALLEST);
    if (x === "right") right = within(right + dx, left + SMALLEST, 1);
    if (y === "top") top = within(top + dy, 0, bottom - SMALLEST);
    if (y === "bottom") bottom = within(bottom + dy, top + SMALLEST, 1);
    const shape = ratio();
    if (!shape) return [left, top, right, bottom];
    let wide = x === "mid" ? (bottom - top) * shape : right - left;
    const roomX = x === "left" ? right : x === "right" ? 1 - left : 1, roomY = y === "top" ? bottom : y === "bottom" ? 1 - top : 1;
    wide = Math.min(wide, roomX, roomY * shape);
    const high = wide / shape;
    const fromX = x === "left" ? right - wide : x === "right" ? left : within((left + right - wide) / 2, 0, 1 - wide);
    const fromY = y === "top" ? bottom - high : y === "bottom" ? top : within((top + bottom - high) / 2, 0, 1 - high);
    return [fromX, fromY, fromX + wide, fromY + high];
  };
  const moved = ([left, top, right, bottom], dx, dy) => {
    const x = within(dx, -left, 1 - right), y = within(dy, -top, 1 - bottom);
    return [left + x, top + y, right + x, bottom + y];
  };
  const drag = (event) => {
    event.preventDefault(); cut.keptBox.focus({ preventScroll: true });
    const grip = event.target.closest(".grip"), from = onScreen(cut.crop), start = [event.clientX, event.clientY];
    const size = [cut.frame.clientWidth, cut.frame.clientHeight], holder = cut.keptBox;
    holder.setPointerCapture(event.pointerId);
    const follow = (now) => {
      if (!cut) return;
      const dx = (now.clientX - start[0]) / size[0], dy = (now.clientY - start[1]) / size[1];
      cut.crop = onScreen(grip ? resized(from, grip.dataset.x, grip.dataset.y, dx, dy) : moved(from, dx, dy));
      place();
    };
    const end = () => { holder.removeEventListener("pointermove", follow); };
    holder.addEventListener("pointermove", follow);
    holder.addEventListener("pointerup", end, { once: true });
    holder.addEventListener("pointercancel", end, { once: true });
  };
  const byKey = (event) => {
    const step = { ArrowLeft: [-0.01, 0], ArrowRight: [0.01, 0], ArrowUp: [0, -0.01], ArrowDown: [0, 0.01] }[event.key];
    if (event.key === "Enter") { event.preventDefault(); save(); return; }
    if (!step) return;
    event.preventDefault(); event.stopPropagation();
    const from = onScreen(cut.crop);
    cut.crop = onScreen(event.shiftKey ? resized(from, step[0] ? "right" : "mid", step[1] ? "bottom" : "mid", step[0], step[1]) : moved(from, ...step));
    place();
  };
  const turnBy = (degrees) => {
    const [left, top, right, bottom] = cut.crop, mirrored = cut.flip ? -degrees : degrees;
    cut.crop = mirrored > 0 ? [1 - bottom, left, 1 - top, right] : [top, 1 - right, bottom, 1 - left];
    cut.turn = (cut.turn + mirrored + 360) % 360;
    place();
  };
  const save = () => {
    const whole = cut.crop.every((side, at) => Math.abs(side - [0, 0, 1, 1][at]) < 0.002);
    const crop = whole ? null : cut.crop.map((side) => Math.round(within(side, 0, 1) * 10000) / 10000);
    send("datasets-edit", { recipes: [[cut.id, { turn: cut.turn, straighten: cut.straighten, flip: cut.flip, crop }]] });
    leave();
  };
  const TOOLS = {
    open: begin, close: () => leave(), save, left: () => turnBy(-90), right: () => turnBy(90),
    flip: () => { cut.flip = !cut.flip; place(); },
    all: () => { cut.crop = [0, 0, 1, 1]; cut.shape = 0; document.getElementById("picture-tool-shape").value = ""; place(); },
  };
  document.addEventListener("click", (event) => {
    const tool = event.target.closest("[data-editor]");
    if (tool && (cut || tool.dataset.editor === "open")) TOOLS[tool.dataset.editor]();
  });
  document.addEventListener("input", (event) => {
    if (!cut) return;
    if (event.target.id === "picture-tool-straighten") { cut.straighten = Number(event.target.value); place(); }
    if (event.target.id === "picture-tool-shape") {
      cut.shape = Number(event.target.value) || 0;
      cut.crop = onScreen(resized(onScreen(cut.crop), "mid", "mid", 0, 0));
      if (cut.shape) { /* as large as it can be, around where it was */
        const [left, top, right, bottom] = cut.crop, shape = ratio(), wide = Math.min(1, shape), high = wide / shape;
        const x = within((left + right - wide) / 2, 0, 1 - wide), y = within((top + bottom - high) / 2, 0, 1 - high);
        cut.crop = [x, y, x + wide, y + high];
      }
      place();
    }
  });
  /* Escape leaves the tool first, the picture then. */
  document.addEventListener("cancel", (event) => { if (cut && event.target === viewer()) { event.preventDefault(); leave(); } }, true);
  document.addEventListener("close", (event) => { if (event.target === viewer()) leave(); }, true);
  document.addEventListener("keydown", (event) => {
    if (!viewer()?.open || viewer().dataset.busy || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("textarea, input, select") || document.querySelector("dialog.ask[open]")) return;
    if (event.key === "a") sideOf()?.querySelector("#picture-aside")?.click();
    if (event.key === "c") begin();
  });
})();
