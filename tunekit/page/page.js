"use strict";
// What every part of the page uses. All that comes from an experiment is put in by textContent, never as HTML.

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const DARK = matchMedia("(prefers-color-scheme: dark)");
const state = { picked: null, over: "epochs" }; // picked: the trials inside the ranges that were dragged; null is all

function make(tag, className = "", text = null, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== null) node.textContent = text;
  node.append(...children);
  return node;
}

const figure4 = (value) => (value === null || value === undefined ? "none" : short(value));

function short(value) {
  const size = Math.abs(value);
  if (value === 0 || (size >= 0.001 && size < 10000)) return String(Number(value.toFixed(4)));
  return size < 1e6 && size >= 1 ? Math.round(value).toLocaleString("en") : value.toExponential(2);
}

function clock(seconds) {
  const whole = Math.round(seconds), pad = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

function clipped(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// Colours: Okabe and Ito, Color Universal Design (2008); lighter where the ground is dark.
function colours() {
  const style = getComputedStyle(document.documentElement), of = (name) => style.getPropertyValue(name).trim();
  const dark = DARK.matches && !matchMedia("print").matches;
  return {
    dark, text: of("--text"), quiet: of("--quiet"), page: of("--page"), line: of("--line"), card: of("--card"), strong: of("--strong"),
    shade: of("--shade"), sans: style.fontFamily || "sans-serif",
    states: {
      finished: dark ? "#56b4e9" : "#0072b2", stopped: dark ? "#8d97a3" : "#8a939d", diverged: "#d55e00",
      failed: "#cc79a7", running: dark ? "#2fc79c" : "#009e73", paused: "#e69f00", waiting: dark ? "#5d6772" : "#b9c0c7",
    },
  };
}

// Viridis (S. van der Walt, N. Smith, 2015), the best at the end that stands out from the ground.
const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const scaleColours = () => (colours().dark ? VIRIDIS.slice(1) : VIRIDIS.slice(0, 8).reverse());

function scaleColour(share) {
  const known = scaleColours(), at = Math.max(0, Math.min(1, share)) * (known.length - 1);
  const i = Math.min(Math.floor(at), known.length - 2), rest = at - i;
  const part = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
  const mix = [0, 1, 2].map((k) => Math.round(part(known[i], k) * (1 - rest) + part(known[i + 1], k) * rest));
  return `rgb(${mix.join(",")})`;
}

// The range of most values: where a few lie far off on the bad side, they are left outside of the axis.
function usualRange(values, mode) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (!sorted.length) return { low: 0, high: 1, outside: 0 };
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  let [low, high] = [sorted[0], sorted[sorted.length - 1]];
  const room = 3 * (at(0.9) - at(0.1));
  if (room > 0 && mode === "min") high = Math.min(high, at(0.9) + room);
  if (room > 0 && mode === "max") low = Math.max(low, at(0.1) - room);
  const outside = sorted.filter((value) => value < low || value > high).length;
  const margin = 0.04 * (high - low) || Math.abs(high) * 0.05 || 0.05;
  return { low: low - margin, high: high + margin, outside };
}

const goodness = () => {
  const values = DATA.scored.map((pair) => pair[1]), { low, high } = usualRange(values, DATA.mode);
  return (value) => (DATA.mode === "max" ? (value - low) / (high - low) : (high - value) / (high - low));
};

function hide(id) {
  byId(id).hidden = true;
}

function stateMark(name) {
  const mark = make("span", "swatch"), label = make("span", "state", null, mark, name);
  mark.style.backgroundColor = colours().states[name] || colours().quiet;
  return label;
}

function pairs(list, rows) {
  for (const [key, value] of rows) list.append(make("div", "", null, make("dt", "", key), make("dd", "", value)));
}

function bar(name, number, low, high, dot = null) {
  const track = make("span", "track"), row = make("div", dot === null ? "bar" : "bar wide");
  const fill = make("i", dot === null ? "" : "range");
  fill.style.left = `${100 * low}%`;
  fill.style.width = `${100 * (high - low)}%`;
  track.append(fill);
  if (dot !== null) {
    const mark = make("i", "dot");
    mark.style.left = `${100 * dot}%`;
    track.append(mark);
  }
  row.append(make("span", "name", clipped(name, 80)), track, make("span", "number", number));
  return row;
}

function showTop() {
  document.title = `${DATA.name} · tunekit`;
  byId("title").textContent = DATA.name;
  byId("asked").textContent = DATA.asked;
  const began = DATA.began ? `Begun ${DATA.began}; this page is of ${DATA.made}.` : `This page is of ${DATA.made}.`;
  byId("when").textContent = DATA.going ? `${began} The search goes on.` : began;
  byId("sentence").textContent = DATA.answer.sentence;
  for (const { label, value, note, best } of DATA.answer.cards) {
    const lines = [make("p", "label", label), make("p", "value", value), make("p", "note", note)];
    byId("cards").append(make("div", best ? "card best" : "card", null, ...lines));
  }
  if (DATA.answer.verdict) {
    byId("verdict").hidden = false;
    byId("verdict").querySelector("p").textContent = DATA.answer.verdict;
  }
  if (DATA.answer.config.length) {
    byId("config").hidden = false;
    pairs(byId("config").querySelector("dl"), DATA.answer.config);
  }
}

function showReproduction() {
  byId("call").textContent = DATA.reproduce.call;
  pairs(byId("facts"), DATA.reproduce.facts);
}

function showImportance() {
  const { shares, num_trials: num, fewest } = DATA.importance, note = byId("importance-note");
  if (!DATA.slices.length) {
    note.textContent = num < 2 ? "One trial alone says nothing about what matters." : "All configs are alike.";
    return;
  }
  if (!shares.length) {
    note.textContent = `${num} trials with a result are too few to say what matters: it takes ${fewest} that differ. ` +
      "Below are two of the hyperparameters, as they come.";
    return;
  }
  note.textContent = `The share of each hyperparameter in the differences of ${DATA.metric} between ${num} trials ` +
    "(functional ANOVA by a random forest). Trials that were stopped early count with the best they had reached.";
  for (const [name, share] of shares) {
    byId("importance").append(bar(name, share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`, 0, share));
  }
}

function showNav() {
  const links = new Map();
  for (const section of document.querySelectorAll("main > section:not([hidden])")) {
    const link = make("a", "", section.dataset.nav);
    link.href = `#${section.id}`;
    links.set(section.id, link);
    byId("nav").append(make("li", "", null, link));
  }
  const mark = () => {
    const above = [...links.keys()].filter((id) => byId(id).getBoundingClientRect().top < innerHeight * 0.4);
    const here = above.pop() || "answer";
    for (const [id, link] of links) {
      if (id === here) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

// While the search goes on the page looks again by itself; a button ends that, and so does anybody's work in it.
function keepFresh() {
  if (!DATA.going) return;
  const button = byId("pause"), every = 30;
  let paused = false;
  const show = () => {
    button.textContent = paused ? "Refresh by itself again" : `Refreshes every ${every} s: stop`;
    button.setAttribute("aria-pressed", String(paused));
  };
  button.addEventListener("click", () => { paused = !paused; show(); });
  byId("fresh").hidden = false;
  show();
  setInterval(() => {
    if (!paused && !document.hidden && !state.picked && !byId("search").value) location.reload();
  }, every * 1000);
}
