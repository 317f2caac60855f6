// The link beside Optuna Dashboard leads to the study that is open there.
"use strict";
const beside = document.getElementById("nas-beside");
const aim = () => {
  const open = location.pathname.match(/\/dashboard\/studies\/(\d+)/);
  beside.href = beside.dataset.prefix + (open ? `/studies/${open[1]}` : "/");
};
for (const event of ["pointerenter", "focus", "click"]) beside.addEventListener(event, aim);
