/* Painting over a picture what a training should learn from. Builds on masuka.js and pictures.js. */
(() => {
  "use strict";
  const { make, toast } = window.masuka;
  const LONGEST = 1024; /* of the mask's canvas; the app scales it to the picture */
  const viewer = () => document.getElementById("viewer");
  let paint = null;
  const leave = () => {
    if (!paint) return;
    const box = viewer(), side = box.querySelector(".picture-side"), panel = box.querySelector(".mask-painter");
    window.removeEventListener("resize", paint.place);
    paint.frame.remove(); paint = null;
    box.classList.remove("editing"); delete box.dataset.busy;
    if (side) side.hidden = false;
    if (panel) panel.hidden = true;
    document.getElementById("picture-mask")?.focus();
  };
  window.masuka.turned.push(leave);
  const begin = (event) => {
    const box = viewer(), side = box?.querySelector('aside:not([aria-busy="true"]) .picture-side'), panel = box?.querySelector(".mask-painter");
    if (!side || !panel || paint || box.dataset.busy) return;
    const width = Number(side.dataset.width), height = Number(side.dataset.height), scale = Math.min(1, LONGEST / Math.max(width, height));
    const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale), tabIndex: 0 });
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", "The mask over the picture");
    canvas.setAttribute("aria-describedby", "picture-painter-keys");
    const image = make("img", { src: side.dataset.original, alt: "" });
    const frame = make("div", { className: "cutter painting" }, make("div", { className: "pane" }, image), canvas);
    const brush = make("div", { className: "brush", hidden: true });
    frame.append(brush);
    const stage = box.querySelector(".stage");
    const place = () => {
      const about = getComputedStyle(stage), left = parseFloat(about.paddingLeft), top = parseFloat(about.paddingTop);
      const room = [stage.clientWidth - left - parseFloat(about.paddingRight), stage.clientHeight - top - parseFloat(about.paddingBottom)];
      const fit = Math.min(room[0] / width, room[1] / height);
      Object.assign(frame.style, { width: `${width * fit}px`, height: `${height * fit}px`, left: `${left + (room[0] - width * fit) / 2}px`, top: `${top + (room[1] - height * fit) / 2}px` });
    };
    paint = { frame, canvas, brush, place, id: side.dataset.picture, erase: false, last: null, at: [canvas.width / 2, canvas.height / 2], held: "", said: 0, colour: getComputedStyle(document.documentElement).getPropertyValue("--accent") || "#c2410c" };
    box.classList.add("editing"); box.dataset.busy = "yes";
    side.hidden = true; panel.hidden = false; box.scrollTop = 0;
    stage.append(frame); place(); choose(false);
    window.addEventListener("resize", place);
    canvas.addEventListener("pointerdown", down);
    canvas.addEventListener("pointermove", move);
    canvas.addEventListener("pointerleave", () => { brush.hidden = document.activeElement !== canvas; if (!brush.hidden) aim(); });
    canvas.addEventListener("keydown", byKey);
    canvas.addEventListener("keyup", (now) => { if (now.key === " " && paint) paint.held = ""; });
    canvas.addEventListener("focus", aim);
    canvas.addEventListener("blur", () => { brush.hidden = true; if (paint) paint.held = ""; });
    if (side.dataset.mask) recall(side.dataset.mask);
    /* Whoever opened it by keyboard paints by keyboard. */
    (event && event.detail === 0 ? canvas : panel.querySelector("[data-painter]"))?.focus();
  };
  /* The kept mask: how white it is says how much it covers. */
  const recall = (address) => {
    const image = new Image(), now = paint;
    image.onload = () => {
      if (paint !== now) return;
      const pen = paint.canvas.getContext("2d", { willReadFrequently: true });
      pen.drawImage(image, 0, 0, paint.canvas.width, paint.canvas.height);
      const pixels = pen.getImageData(0, 0, paint.canvas.width, paint.canvas.height);
      for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at];
      pen.putImageData(pixels, 0, 0);
      tint(pen, paint.colour);
    };
    image.src = address;
  };
  const tint = (pen, colour) => {
    pen.globalCompositeOperation = "source-in"; pen.fillStyle = colour;
    pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
    pen.globalCompositeOperation = "source-over";
  };
  const size = () => Number(document.getElementById("picture-tool-brush").value) / 100 * Math.max(paint.canvas.width, paint.canvas.height);
  const at = (event) => {
    const box = paint.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * paint.canvas.width, (event.clientY - box.top) / box.height * paint.canvas.height];
  };
  const stroke = (from, to, erase = paint.erase) => {
    const pen = paint.canvas.getContext("2d", { willReadFrequently: true });
    pen.globalCompositeOperation = erase ? "destination-out" : "source-over";
    Object.assign(pen, { strokeStyle: paint.colour, lineCap: "round", lineJoin: "round", lineWidth: size() });
    pen.beginPath(); pen.moveTo(...from); pen.lineTo(to[0] + 0.01, to[1]); pen.stroke();
    pen.globalCompositeOperation = "source-over";
  };
  const down = (event) => {
    event.preventDefault(); paint.canvas.setPointerCapture(event.pointerId);
    paint.last = at(event); stroke(paint.last, paint.last);
    paint.canvas.addEventListener("pointerup", () => { if (paint) paint.last = null; }, { once: true });
  };
  const move = (event) => {
    const here = at(event);
    if (event.pointerType === "mouse") brushAt(here);
    if (!paint.last) return;
    stroke(paint.last, here); paint.last = here;
  };
  const brushAt = ([x, y]) => {
    const scale = paint.canvas.getBoundingClientRect().width / paint.canvas.width, wide = size() * scale;
    paint.brush.hidden = false;
    Object.assign(paint.brush.style, { width: `${wide}px`, height: `${wide}px`, left: `${x * scale}px`, top: `${y * scale}px` });
  };
  /* By keyboard: the brush stands where the arrows moved it, and Space puts it down. */
  const aim = () => { brushAt(paint.at); };
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const SIZES = { "[": -2, "]": 2 };
  const byKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { canvas, at: from } = paint, step = STEPS[event.key];
    if (step) {
      const wide = Math.max(2, size() / 2);
      paint.at = [Math.min(canvas.width, Math.max(0, from[0] + step[0] * wide)), Math.min(canvas.height, Math.max(0, from[1] + step[1] * wide))];
      if (paint.held) stroke(from, paint.at, paint.held === "erase");
      tell(`${Math.round(paint.at[0] / canvas.width * 100)} % across, ${Math.round(paint.at[1] / canvas.height * 100)} % down`);
    } else if (event.key === " ") {
      if (!event.repeat) {
        paint.held = event.shiftKey || paint.erase ? "erase" : "paint";
        stroke(from, from, paint.held === "erase"); tell(paint.held === "erase" ? "erased" : "painted");
      }
    } else if (event.key in SIZES) {
      const slider = document.getElementById("picture-tool-brush");
      slider.value = Number(slider.value) + SIZES[event.key]; tell(`brush of ${slider.value} %`);
    } else return;
    event.preventDefault(); aim();
  };
  /* Said when the keys rest, so that nobody has to hear every step. */
  const tell = (text) => {
    const now = paint, line = viewer().querySelector("[data-painter-says]");
    clearTimeout(paint.said);
    paint.said = setTimeout(() => { if (paint === now) line.textContent = text; }, 250);
  };
  const choose = (erase) => {
    paint.erase = erase;
    for (const name of ["paint", "erase"]) viewer().querySelector(`[data-painter="${name}"]`).setAttribute("aria-pressed", String((name === "erase") === erase));
  };
  const save = async () => {
    const { canvas, id } = paint, pen = canvas.getContext("2d", { willReadFrequently: true });
    tint(pen, "#ffffff");
    const png = await new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
    tint(pen, paint.colour);
    const answer = await fetch(`mask/${id}`, { method: "PUT", body: png, headers: { "content-type": "image/png" } }).catch(() => null);
    if (!answer || !answer.ok) {
      const said = answer ? await answer.json().catch(() => null) : null;
      toast(said && said.message ? `${said.message} ${said.hint}` : "It did not arrive. Try again.", null, true);
      return;
    }
    leave(); toast("The mask is kept."); window.masuka.renew();
  };
  const TOOLS = {
    open: begin, close: leave, save, paint: () => choose(false), erase: () => choose(true),
    clear: () => paint.canvas.getContext("2d").clearRect(0, 0, paint.canvas.width, paint.canvas.height),
  };
  document.addEventListener("click", (event) => {
    const tool = event.target.closest("[data-painter]");
    if (tool && (paint || tool.dataset.painter === "open")) TOOLS[tool.dataset.painter](event);
  });
  document.addEventListener("cancel", (event) => { if (paint && event.target === viewer()) { event.preventDefault(); leave(); } }, true);
  document.addEventListener("close", (event) => { if (event.target === viewer()) leave(); }, true);
})();
