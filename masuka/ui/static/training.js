"use strict";
/* The panel beside the start button: what a training with the form's values takes, said while they are typed. */
(() => {
  const form = () => document.getElementById("training-form");
  const place = () => document.getElementById("training-plan");
  let timer = 0, asked = 0, known = "";

  const ask = async () => {
    if (!form() || !place()) return;
    const text = JSON.stringify(window.masuka.values(form()));
    const trial = document.querySelector("[data-trial]");
    const state = text + (trial ? trial.dataset.trial : "");
    if (state === known && place().dataset.for === known) return;
    known = state;
    const mine = ++asked;
    place().setAttribute("aria-busy", "true");
    let piece = "";
    try {
      const answer = await fetch(`fragment/plan?v=${encodeURIComponent(text)}`, { headers: { accept: "text/html" } });
      if (answer.ok && (answer.headers.get("content-type") || "").startsWith("text/html")) piece = await answer.text();
    } catch { piece = ""; }
    if (mine !== asked || !place()) return;
    place().removeAttribute("aria-busy");
    if (!piece) return; /* what stands there stays; the next change asks again */
    place().innerHTML = piece;
    place().dataset.for = state;
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(ask, 400); };

  document.addEventListener("input", (event) => { if (event.target.closest("#training-form")) soon(); });
  document.addEventListener("change", (event) => { if (event.target.closest("#training-form")) soon(); });
  window.masuka.after.push(soon);
  window.masuka.answered.push(soon);
})();
