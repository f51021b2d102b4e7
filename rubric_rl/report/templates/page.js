// The list of prompts and the chosen one.

const LISTED = 300; // buttons in the list; a search finds the others

const names = read("names"); // of the runs, one or two
const prompts = read("index").map(([id, theme, question, scores], place) => {
  return { place, id, theme, question, scores }; // a score is null where a run has none
});

let chosen = -1; // the place of the prompt that is shown
let visible = []; // the prompts that search and theme leave, in order

// Small parts

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
