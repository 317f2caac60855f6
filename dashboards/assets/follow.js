// Reads the page again while a search runs, and puts what has changed in its place; figures keep what was zoomed into.
"use strict";
const LEAST_MS = 10000, SHARE = 20; // a page that takes long to make is asked for more rarely

function exchange(read) {
  const chosen = [...document.querySelectorAll("main input:checked")].map((box) => box.value);
  const open = [...document.querySelectorAll("main details")].map((details) => details.open);
  for (const figure of read.querySelectorAll("figure.plot")) {
    const drawn = document.getElementById(figure.id);
    if (!drawn) continue;
    drawn.querySelector("script").textContent = figure.querySelector("script").textContent;
    figure.replaceWith(drawn);
  }
  document.querySelector("main").replaceWith(read);
  document.querySelectorAll("main details").forEach((details, place) => { details.open = open[place] ?? details.open; });
  for (const box of document.querySelectorAll("main input")) box.checked = chosen.includes(box.value);
  if (typeof drawAll === "function") drawAll();
}

async function follow() {
  let wait_ms = LEAST_MS;
  if (!document.hidden) {
    const begun = performance.now();
    const answer = await fetch(location.href).catch(() => null);
    if (answer?.redirected || answer?.status === 401) return; // logged out
    if (answer?.ok) exchange(new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main"));
    wait_ms = Math.max(LEAST_MS, SHARE * (performance.now() - begun));
  }
  if (document.querySelector("[data-running]")) setTimeout(follow, wait_ms);
}

if (document.querySelector("[data-running]")) setTimeout(follow, LEAST_MS);
