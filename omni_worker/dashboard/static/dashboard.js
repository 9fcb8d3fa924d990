// The pages work without this file. It keeps them current, and adds keys.
"use strict";
const STALE = 10_000; // ms without news until what is shown is called old
const content = document.getElementById("content");
const state = document.getElementById("live-state");
const stale = document.getElementById("stale");
let heard = Date.now();

function tell(word, tone) {
  state.lastElementChild.textContent = word;
  state.dataset.tone = tone;
}

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) time.title = at.toLocaleString();
  }
}

function morph(html) {
  Idiomorph.morph(content, html, {
    morphStyle: "innerHTML",
    ignoreActiveValue: true,
    callbacks: {
      // What a person opened or ticked stays so.
      beforeAttributeUpdated: (name) => name !== "open" && name !== "checked",
    },
  });
  localTimes(content);
  countChosen();
}

// A click is lost if its button is replaced between press and release: news waits that long, but
// not for a release that is never told, as behind the browser's own menu.
let isPressed = false;
let waiting = null;
let patience;
function released() {
  isPressed = false;
  clearTimeout(patience);
  setTimeout(() => { if (waiting !== null && !isPressed) { morph(waiting); waiting = null; } });
}
addEventListener("pointerdown", () => {
  isPressed = true;
  clearTimeout(patience);
  patience = setTimeout(released, 1_000);
});
addEventListener("pointerup", released);
addEventListener("pointercancel", released);

function show(html) {
  if (isPressed) waiting = html;
  else morph(html);
}

function listen() {
  const live = content.dataset.live;
  if (!live) return;
  let source;
  let isDone = false;
  const open = () => {
    source = new EventSource(live);
    const news = () => { heard = Date.now(); stale.hidden = true; tell("live", "live"); };
    source.addEventListener("open", news);
    source.addEventListener("beat", news);
    source.addEventListener("frame", (event) => { news(); show(event.data); });
    source.addEventListener("done", () => { news(); source.close(); tell("complete", ""); heard = Infinity; isDone = true; });
    source.addEventListener("trouble", (event) => { tell("no answer", "bad"); state.title = event.data; });
    source.addEventListener("error", () => {
      tell("reconnecting", "bad");
      // A refused stream is not tried again by the browser.
      if (source.readyState === EventSource.CLOSED && !document.hidden) setTimeout(open, 3_000);
    });
  };
  open();
  // A browser has six connections to a server: hidden pages give theirs back.
  const rest = () => { source.close(); heard = Infinity; tell("resting", ""); };
  addEventListener("pagehide", rest);
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) rest();
    else if (source.readyState === EventSource.CLOSED && !isDone) { heard = Date.now(); open(); }
  });
  setInterval(() => { stale.hidden = Date.now() - heard < STALE; }, 1_000);
}

function countChosen() {
  const boxes = [...content.querySelectorAll('input[name="number"]')];
  const chosen = boxes.filter((box) => box.checked).length;
  for (const button of content.querySelectorAll("[data-chosen]")) button.disabled = chosen === 0;
  const all = content.querySelector("[data-all]");
  if (!all) return;
  all.checked = chosen > 0 && chosen === boxes.length;
  all.indeterminate = chosen > 0 && chosen < boxes.length;
  all.nextElementSibling.textContent = chosen ? `${chosen} chosen` : "all on this page";
}

content.addEventListener("change", (event) => {
  if (event.target.matches("[data-all]")) {
    for (const box of content.querySelectorAll('input[name="number"]')) box.checked = event.target.checked;
  }
  countChosen();
});

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  try { localStorage.setItem("omni-worker-theme", root.dataset.theme); } catch { /* not kept */ }
});

function move(step) {
  const names = [...content.querySelectorAll("tr .name, li .name")];
  const now = names.indexOf(document.activeElement);
  names[Math.max(0, Math.min(names.length - 1, now + step))]?.focus();
}

let isGoing = false;
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (isGoing) {
    isGoing = false;
    const links = [...document.querySelectorAll("nav a")].filter((link) => link.textContent.toLowerCase().startsWith(event.key));
    // Two pages may begin with one letter: the same keys lead from one to the next.
    const here = links.findIndex((link) => link.hasAttribute("aria-current"));
    links[(here + 1) % links.length]?.click();
    return;
  }
  const keys = {
    "/": () => document.querySelector(".filters input")?.focus(),
    j: () => move(1),
    k: () => move(-1),
    t: () => document.getElementById("theme").click(),
    g: () => { isGoing = true; setTimeout(() => { isGoing = false; }, 1_500); },
  };
  if (Object.hasOwn(keys, event.key)) {
    event.preventDefault();
    keys[event.key]();
  }
});

document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
localTimes(document);
countChosen();
listen();
