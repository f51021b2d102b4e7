"use strict";
// Answers with their verdicts, on every page. Everything that comes from a model or a data file
// enters the page as text nodes only.

const WORDS = new Map([[true, "met"], [false, "not met"], [null, "unreadable"]]);

const byId = id => document.getElementById(id);
const read = id => JSON.parse(byId(id).textContent);

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

