"use strict";
// The list of prompts and the chosen one. Everything that comes from a model or a data file enters
// the page as text nodes only.

const LISTED = 300; // buttons in the list; a search finds the others
const WORDS = new Map([[true, "met"], [false, "not met"], [null, "unreadable"]]);

const byId = id => document.getElementById(id);
const read = id => JSON.parse(byId(id).textContent);

const names = read("names"); // of the runs, one or two
const prompts = read("index").map(([id, theme, question, scores], place) => {
  return { place, id, theme, question, scores }; // a score is null where a run has none
});

let chosen = -1; // the place of the prompt that is shown
let visible = []; // the prompts that search and theme leave, in order

// Small parts

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function score(value) {
  return value === null ? "–" : value.toFixed(3);
}

function points(value) {
  const sign = value < 0 ? "−" : "+";
  return sign + Math.abs(value);
}

function turn(className, heading, text) {
  return element("div", "turn " + className, element("b", "", heading), text);
}

function fill(select, options) {
  for (const [value, text] of options) {
    const option = element("option", "", text);
    option.value = value;
    select.append(option);
  }
}

// The list

const ORDERS = { // what each order sorts by; NaN comes last
  gain: prompt => -gain(prompt),
  loss: gain,
  low: prompt => prompt.scores[0] ?? NaN,
  high: prompt => -(prompt.scores[0] ?? NaN),
  file: prompt => prompt.place,
};

function gain(prompt) {
  const [before, after] = prompt.scores;
  return (after ?? NaN) - (before ?? NaN);
}

function orderNames() {
  const single = [["low", "lowest score"], ["high", "highest score"], ["file", "file order"]];
  const paired = [["gain", "gained most"], ["loss", "lost most"]];
  return names.length > 1 ? [...paired, ...single] : single;
}

function themeNames() {
  const themes = new Set(prompts.map(prompt => prompt.theme));
  const named = [...themes].filter(Boolean).sort();
  return [["", "all themes"], ...named.map(theme => [theme, theme])];
}

function isWanted(prompt, words, theme) {
  if (theme && prompt.theme !== theme) return false;
  const texts = [prompt.id, prompt.theme, prompt.question].map(text => text.toLowerCase());
  return words.every(word => texts.some(text => text.includes(word)));
}

function inOrder(found, key) {
  const placed = found.map(prompt => {
    const value = key(prompt);
    return { prompt, value: Number.isNaN(value) ? Infinity : value };
  });
  placed.sort((a, b) => {
    if (a.value === b.value) return a.prompt.place - b.prompt.place;
    return a.value < b.value ? -1 : 1;
  });
  return placed.map(each => each.prompt);
}

function button(prompt) {
  const made = element(
    "button",
    prompt.place === chosen ? "on" : "",
    element("span", "score", prompt.scores.map(score).join(" → ")),
    element("div", "clip", prompt.question || prompt.id),
    element("small", "", (prompt.theme || "no theme") + " · " + prompt.id),
  );
  made.dataset.place = prompt.place;
  made.onclick = () => show(prompt.place);
  return made;
}

function list() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const theme = byId("theme").value;
  const found = prompts.filter(prompt => isWanted(prompt, words, theme));
  visible = inOrder(found, ORDERS[byId("order").value]);
  const cut = visible.length > LISTED ? ", the first " + LISTED + " shown" : "";
  byId("count").textContent = visible.length + " of " + prompts.length + " prompts" + cut;
  byId("list").replaceChildren(...visible.slice(0, LISTED).map(button));
}

// The chosen prompt

function answersOf(item) {
  const answers = [];
  item.runs.forEach((found, run) => {
    found.forEach((answer, number) => {
      const name = names.length > 1 ? names[run] : "answer";
      const label = found.length > 1 ? name + " " + (number + 1) : name;
      answers.push({ ...answer, run, label });
    });
  });
  return answers;
}

function conversation(item) {
  if (item.messages.length) {
    return item.messages.map(message => turn("", message.role, message.content));
  }
  const missing = "The conversation is not in these records: they are of the first form, "
    + "which lacks it.";
  return [element("p", "note", missing)];
}

function outcome(answer) {
  if (answer.status === "graded") return "score " + score(answer.score) + anchorOutcome(answer);
  const status = answer.status.replace("_", " ");
  return answer.error ? status + ": " + answer.error : status;
}

function anchorOutcome(answer) {
  const anchor = answer.anchor;
  if (!anchor) return "";
  return " · anchor " + anchor.grader + ": " + (anchor.error || score(anchor.score));
}

function answerTurn(answer) {
  const heading = answer.label + " · " + outcome(answer);
  return turn("run" + answer.run, heading, answer.answer || "(no final answer)");
}

function chip(criterion, verdict) {
  if (!verdict) return element("span", "tags", "not asked");
  let kind = "odd";
  if (verdict.met !== null) kind = verdict.met === criterion.points > 0 ? "good" : "bad";
  const made = element("span", "chip " + kind, WORDS.get(verdict.met));
  if (verdict.probability !== null) {
    made.title = "probability of met: " + verdict.probability.toFixed(3);
  }
  return made;
}

function criterionRow(criterion, number, answers) {
  const text = element("td", "text", criterion.criterion);
  text.append(element("div", "tags", criterion.tags.join(" · ")));
  const chips = [];
  for (const answer of answers) {
    const verdict = answer.verdicts[number];
    chips.push(element("td", "", chip(criterion, verdict)));
    if (verdict && verdict.explanation) {
      const of = answers.length > 1 ? answer.label + ": " : "";
      text.append(element("div", "why", of + verdict.explanation));
    }
  }
  return element("tr", "", element("td", "n", points(criterion.points)), text, ...chips);
}

// The answers, and each one's anchor beside it.
function withAnchors(answers) {
  return answers.flatMap(answer => {
    if (!answer.anchor) return [answer];
    const label = answers.length > 1 ? answer.label + ", anchor" : "anchor";
    return [answer, { ...answer.anchor, label }];
  });
}

function rubricTable(item, own) {
  const answers = withAnchors(own);
  const labels = answers.map(answer => element("th", "", answer.label));
  const head = element(
    "tr", "", element("th", "n", "points"), element("th", "", "criterion"), ...labels,
  );
  const rows = item.rubric.map((criterion, number) => criterionRow(criterion, number, answers));
  return element("table", "", element("thead", "", head), element("tbody", "", ...rows));
}

function show(place) {
  chosen = place;
  const item = read("prompt" + place);
  const answers = answersOf(item);
  byId("detail").replaceChildren(
    element("h3", "", (item.theme || "no theme") + " · " + item.id),
    ...conversation(item),
    element("div", answers.length === 2 ? "answers two" : "answers", ...answers.map(answerTurn)),
    rubricTable(item, answers),
  );
  for (const each of byId("list").children) {
    each.className = Number(each.dataset.place) === place ? "on" : "";
  }
}

function jump(place) {
  show(place);
  byId("prompts").scrollIntoView();
}

// A link to a prompt: the page's address with #prompt_id

function linked() {
  let id = location.hash.slice(1);
  try {
    id = decodeURIComponent(id);
  } catch {
    // Not encoded: the id as it stands.
  }
  return prompts.find(prompt => prompt.id === id);
}

function follow() {
  const prompt = linked();
  if (prompt) jump(prompt.place);
  return Boolean(prompt);
}

// What a person does

function click(event) {
  const target = event.target;
  if (target.classList.contains("jump")) jump(Number(target.dataset.place));
  if (target.classList.contains("clamp")) target.classList.toggle("open");
}

function press(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const inSide = byId("side").contains(document.activeElement);
  if (!step || !inSide || event.target.tagName === "SELECT") return;
  event.preventDefault();
  const now = visible.findIndex(prompt => prompt.place === chosen);
  const next = visible[Math.min(Math.max(now + step, 0), visible.length - 1)];
  if (!next) return;
  show(next.place);
  const on = byId("list").querySelector(".on");
  if (on) on.scrollIntoView({ block: "nearest" });
}

fill(byId("theme"), themeNames());
fill(byId("order"), orderNames());
for (const id of ["search", "theme", "order"]) byId(id).addEventListener("input", list);
document.addEventListener("click", click);
document.addEventListener("keydown", press);
window.addEventListener("hashchange", follow);
list();
if (!follow() && visible.length) show(visible[0].place);
