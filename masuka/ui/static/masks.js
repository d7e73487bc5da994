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
  const begin = () => {
    const box = viewer(), side = box?.querySelector('aside:not([aria-busy="true"]) .picture-side'), panel = box?.querySelector(".mask-painter");
    if (!side || !panel || paint || box.dataset.busy) return;
    const width = Number(side.dataset.width), height = Number(side.dataset.height), scale = Math.min(1, LONGEST / Math.max(width, height));
    const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
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
    paint = { frame, canvas, brush, place, id: side.dataset.picture, erase: false, last: null, colour: getComputedStyle(document.documentElement).getPropertyValue("--accent") || "#c2410c" };
    box.classList.add("editing"); box.dataset.busy = "yes";
    side.hidden = true; panel.hidden = false; box.scrollTop = 0;
    stage.append(frame); place(); choose(false);
    window.addEventListener("resize", place);
    canvas.addEventListener("pointerdown", down);
    canvas.addEventListener("pointermove", move);
    canvas.addEventListener("pointerleave", () => { brush.hidden = true; });
    if (side.dataset.mask) recall(side.dataset.mask);
    panel.querySelector("[data-painter]")?.focus();
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
  const stroke = (from, to) => {
    const pen = paint.canvas.getContext("2d", { willReadFrequently: true });
    pen.globalCompositeOperation = paint.erase ? "destination-out" : "source-over";
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
    const here = at(event), box = paint.canvas.getBoundingClientRect(), wide = size() * box.width / paint.canvas.width;
    if (event.pointerType === "mouse") {
      paint.brush.hidden = false;
      Object.assign(paint.brush.style, { width: `${wide}px`, height: `${wide}px`, left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px` });
    }
    if (!paint.last) return;
    stroke(paint.last, here); paint.last = here;
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
    if (tool && (paint || tool.dataset.painter === "open")) TOOLS[tool.dataset.painter]();
  });
  document.addEventListener("cancel", (event) => { if (paint && event.target === viewer()) { event.preventDefault(); leave(); } }, true);
  document.addEventListener("close", (event) => { if (event.target === viewer()) leave(); }, true);
})();
