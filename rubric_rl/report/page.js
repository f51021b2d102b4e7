"use strict";
// Everything that comes from a model or a data file enters the page as text nodes only.
const read = id => JSON.parse(document.getElementById(id).textContent);
const names = read("names"), index = read("index");  // index: [id, theme, question, score of each run]
const $ = id => document.getElementById(id);
const SHOWN = 300;
let chosen = -1, visible = [];

function el(tag, name, ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...children);
  return node;
}
const number = value => value === null ? "–" : value.toFixed(3);
const signed = value => (value < 0 ? "−" : "+") + Math.abs(value);

function fillSelect(select, options) {
  for (const [value, text] of options) { const option = el("option", "", text); option.value = value; select.append(option); }
}

function orders() {
  const found = [["low", "lowest score"], ["high", "highest score"], ["file", "file order"]];
  return names.length > 1 ? [["gain", "gained most"], ["loss", "lost most"], ...found] : found;
}

function list() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean), theme = $("theme").value, order = $("order").value;
  visible = index.map((_, i) => i).filter(i => (!theme || index[i][1] === theme) &&
    words.every(word => index[i].slice(0, 3).some(text => text.toLowerCase().includes(word))));
  const score = i => index[i][3][0] ?? Infinity, gain = i => (index[i][3][1] ?? NaN) - (index[i][3][0] ?? NaN);
  const keys = { low: score, high: i => -(index[i][3][0] ?? -Infinity), gain: i => -gain(i), loss: gain, file: i => i };
  const place = i => { const key = keys[order](i); return Number.isNaN(key) ? Infinity : key; };
  visible.sort((a, b) => place(a) - place(b) || a - b);
  $("count").textContent = visible.length + " of " + index.length + " prompts" + (visible.length > SHOWN ? ", the first " + SHOWN + " shown" : "");
  $("list").replaceChildren(...visible.slice(0, SHOWN).map(i => {
    const [id, name, question, scores] = index[i];
    const button = el("button", i === chosen ? "on" : "", el("span", "s", scores.map(number).join(" → ")), el("div", "clip", question || id),
      el("small", "", (name || "no theme") + " · " + id));
    button.onclick = () => show(i);
    button.dataset.i = i;
    return button;
  }));
}

function chip(points, said) {
  if (!said) return el("span", "tags", "not asked");
  const word = said.verdict === null ? "unreadable" : said.verdict ? "met" : "not met";
  const kind = said.verdict === null ? "odd" : said.verdict === points > 0 ? "good" : "bad";
  const node = el("span", "chip " + kind, word);
  if (said.probability !== null && said.probability !== undefined) node.title = "probability of met: " + said.probability.toFixed(3);
  return node;
}

function turn(kind, head, text) { return el("div", "turn " + kind, el("b", "", head), text); }

function answers(item) {
  const columns = [];
  item.runs.forEach((found, run) => found.forEach((answer, i) => {
    const label = (names.length > 1 ? names[run] : "answer") + (found.length > 1 ? " " + (i + 1) : "");
    columns.push({ run, answer, label });
  }));
  return columns;
}

function rubric(item, columns) {
  const head = el("tr", "", el("th", "n", "points"), el("th", "", "criterion"), ...columns.map(c => el("th", "", c.label)));
  const rows = item.rubric.map((criterion, i) => {
    const text = el("td", "text", criterion.criterion, el("div", "tags", criterion.tags.join(" · ")));
    for (const c of columns) {
      const why = c.answer.verdicts[i] && c.answer.verdicts[i].explanation;
      if (why) text.append(el("div", "why", (columns.length > 1 ? c.label + ": " : "") + why));
    }
    return el("tr", "", el("td", "n", signed(criterion.points)), text, ...columns.map(c => el("td", "", chip(criterion.points, c.answer.verdicts[i]))));
  });
  return el("table", "", el("thead", "", head), el("tbody", "", ...rows));
}

function show(i, scroll) {
  chosen = i;
  const item = read("e" + i), columns = answers(item);
  const turns = item.messages.map(message => turn("", message.role, message.content));
  const said = columns.map(c => turn("run" + c.run, c.label + " · " + (c.answer.status === "graded" ? "score " + number(c.answer.score) :
    c.answer.status.replace("_", " ") + (c.answer.error ? ": " + c.answer.error : "")), c.answer.answer ?? "(no final answer)"));
  $("detail").replaceChildren(el("h3", "", (item.theme || "no theme") + " · " + item.id), ...turns,
    el("div", "answers" + (columns.length === 2 ? " two" : ""), ...said), rubric(item, columns));
  for (const button of $("list").children) button.className = Number(button.dataset.i) === i ? "on" : "";
  if (scroll) $("prompts").scrollIntoView();
}

function jumpTo(id) {
  const i = index.findIndex(entry => entry[0] === id);
  if (i >= 0) show(i, true);
}

fillSelect($("theme"), [["", "all themes"], ...[...new Set(index.map(entry => entry[1]))].filter(Boolean).sort().map(name => [name, name])]);
fillSelect($("order"), orders());
for (const id of ["search", "theme", "order"]) $(id).addEventListener("input", list);
document.addEventListener("click", event => {
  if (event.target.dataset && event.target.dataset.jump) jumpTo(event.target.dataset.jump);
  if (event.target.classList && event.target.classList.contains("clamp")) event.target.classList.toggle("open");
});
document.addEventListener("keydown", event => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target.tagName === "SELECT" || !$("side").contains(document.activeElement)) return;
  event.preventDefault();
  const next = visible[Math.min(Math.max(visible.indexOf(chosen) + step, 0), visible.length - 1)];
  if (next !== undefined) show(next);
});
list();
if (location.hash.length > 1 && index.some(entry => entry[0] === decodeURIComponent(location.hash.slice(1)))) jumpTo(decodeURIComponent(location.hash.slice(1)));
else if (visible.length) show(visible[0]);
