// Draws the figures of a page in the page's own colours, light or dark, and again when these change.
"use strict";
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");

function coloured(layout) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--dim") };
  const made = structuredClone(layout);
  made.font = { ...made.font, color: colour("--text"), family: "system-ui, 'DejaVu Sans', sans-serif", size: 13 };
  made.hoverlabel = { bgcolor: colour("--back"), bordercolor: colour("--dim"), font: { color: colour("--text") }, align: "left" };
  for (const key of Object.keys(made)) if (/^[xy]axis\d*$/.test(key)) made[key] = { ...axis, ...made[key] };
  return made;
}

function drawAll() {
  for (const figure of document.querySelectorAll("figure.plot")) {
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    const options = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["lasso2d", "select2d"] };
    Plotly.react(figure.querySelector("div"), data, coloured(layout), options);
  }
}

drawAll();
dark.addEventListener("change", drawAll);
