// The curves of a training run, and the answers at the chosen point of one.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 520, HEIGHT = 220, LEFT = 46, RIGHT = 12, TOP = 10, BOTTOM = 24;

const curves = read("curves"); // charts: title, series of name, kind, points

function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// The range of some values, a little wider; one of width 1 where all are equal.
function range(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low) * 0.05 || 0.5;
  return [low - margin, high + margin];
}

function scale([low, high], from, to) {
  return value => from + (to - from) * (value - low) / (high - low);
}

function digits(value) {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3);
}

function axis(across, up, xs, ys) {
  const bottom = HEIGHT - BOTTOM;
  const marks = [shape("line", { class: "axis", x1: LEFT, x2: WIDTH, y1: bottom, y2: bottom })];
  for (const y of ys) {
    marks.push(shape("text", { class: "tick", x: LEFT - 5, y: up(y) + 4, "text-anchor": "end" },
      digits(y)));
  }
  for (const x of xs) {
    marks.push(shape("text", { class: "tick", x: across(x), y: HEIGHT - 6,
      "text-anchor": "middle" }, String(x)));
  }
  return marks;
}

function curve(series, number, across, up) {
  const known = "curve run" + number % 2 + " " + series.kind;
  const path = series.points.map(point => across(point.x) + "," + up(point.y)).join(" ");
  const marks = [shape("polyline", { class: known, points: path })];
  for (const point of series.points) {
    if (point.low !== null) {
      marks.push(shape("line", { class: known, x1: across(point.x), x2: across(point.x),
        y1: up(point.low), y2: up(point.high) }));
    }
    const words = series.name + " at " + point.x + ": " + digits(point.y);
    const dot = shape("circle", { class: "dot run" + number % 2, cx: across(point.x),
      cy: up(point.y), r: series.kind === "eval" ? 5 : 3 }, shape("title", {}, words));
    dot.addEventListener("click", () => showPoint(point.key));
    marks.push(dot);
  }
  return marks;
}

function chart(item) {
  const points = item.series.flatMap(series => series.points);
  const ys = points.flatMap(point => [point.y, point.low ?? point.y, point.high ?? point.y]);
  const xs = points.map(point => point.x);
  const [low, high] = range(ys);
  const first = Math.min(...xs), last = Math.max(...xs);
  const across = scale([first, last > first ? last : first + 1], LEFT + 8, WIDTH - RIGHT);
  const up = scale([low, high], HEIGHT - BOTTOM, TOP);
  const box = "0 0 " + WIDTH + " " + HEIGHT;
  const picture = shape("svg", { class: "plot", viewBox: box, role: "img" },
    ...axis(across, up, [...new Set([first, last])], [low, high]),
    ...item.series.flatMap((series, number) => curve(series, number, across, up)));
  const names = item.series.map((series, number) => {
    return element("span", "legend", element("i", "key run" + number % 2), series.name);
  });
  return element("div", "card", element("h3", "", item.title), picture,
    element("div", "note", ...names));
}

function showPoint(key) {
  const block = byId("point_" + key);
  const target = byId("detail");
  if (!block) {
    const missing = "No answers of this point are kept on this page: " + key.replace("_", " ");
    target.replaceChildren(element("p", "note", missing));
  } else {
    const point = JSON.parse(block.textContent);
    target.replaceChildren(element("h3", "", point.heading), ...point.items.flatMap(example));
  }
  target.scrollIntoView({ block: "nearest" });
}

function example(item) {
  const answers = item.answers.map(answer => ({ ...answer, run: 0, label: "answer" }));
  return [
    element("h3", "", (item.theme || "no theme") + " · " + item.id),
    ...conversation(item),
    element("div", "answers", ...answers.map(answerTurn)),
    rubricTable(item, answers),
  ];
}

byId("charts").replaceChildren(...curves.map(chart));
const shown = document.querySelectorAll("script[id^=point_]");
if (shown.length) showPoint(shown[shown.length - 1].id.slice("point_".length));
