"use strict";
const test = JSON.parse(document.getElementById("test").textContent);
const the = (id) => document.getElementById(id);

// Draws that depend on a text alone: FNV-1a for the state, mulberry32 for the numbers.
function drawing(text) {
  let state = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) state = Math.imul(state ^ byte, 0x01000193);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(list, draw) {
  const all = [...list];
  for (let last = all.length - 1; last > 0; last--) {
    const other = Math.floor(draw() * (last + 1));
    [all[last], all[other]] = [all[other], all[last]];
  }
  return all;
}

// Everything that a listener said, by trial; kept in the browser after each answer.
let state = null;
const place = (listener) => `audiodiff-listening-test/${test.test}/${listener}`;
function remember() {
  try {
    localStorage.setItem(place(state.listener), JSON.stringify(state));
  } catch {
    the("saved").textContent = "This browser keeps nothing: do not close the page before the answers are saved.";
  }
}
function remembered(listener) {
  try {
    const kept = JSON.parse(localStorage.getItem(place(listener)));
    return kept && kept.listener === listener && kept.answers ? kept : null;
  } catch {
    return null;
  }
}

// One sound at a time. Changing over while one plays goes on at the same moment, so that short differences can be heard,
// but not so near the end that there is nothing to hear (and that the sound is over before it is known to have begun).
const LEAST = 0.25; // seconds
const players = {};
let playing = null;
const heard = new Set();
function player(sound) {
  players[sound] ??= Object.assign(new Audio(test.sounds[sound]), { preload: "auto" });
  return players[sound];
}
function stop() {
  if (!playing) return;
  playing.sound.pause();
  playing.button.setAttribute("aria-pressed", "false");
  playing = null;
}
function playButton(text, sound, key, name) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "play", textContent: text });
  button.dataset.key = key;
  button.dataset.sound = name;
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-keyshortcuts", key);
  connect(button, sound, name);
  return button;
}
function connect(button, sound, name) {
  button.addEventListener("click", async () => {
    const before = playing;
    const at = before ? before.sound.currentTime : 0;
    stop();
    if (before && before.button === button) return;
    const next = player(sound);
    next.onended = () => {
      if (playing?.sound === next && next.ended) stop(); // not where another one, or this one again, has begun since
    };
    next.currentTime = before && at < next.duration - LEAST ? at : 0;
    playing = { sound: next, button };
    button.setAttribute("aria-pressed", "true");
    try {
      await next.play();
      heard.add(name);
      check();
    } catch (error) {
      if (error.name !== "AbortError") the("missing").textContent = "This sound cannot be played here.";
    }
  });
}

// A trial shows its question and tells what is missing (a text, empty when nothing is) and what was answered.
function options(legend, choices) {
  const field = document.createElement("fieldset");
  field.append(Object.assign(document.createElement("legend"), { textContent: legend }));
  for (const [value, text, key] of choices) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "choice", value });
    input.dataset.key = key;
    input.addEventListener("change", check);
    label.append(input, text);
    field.append(label);
  }
  return { field, chosen: () => field.querySelector(":checked")?.value };
}

function mos(trial, asked) {
  const [sound] = trial.sounds;
  const play = document.createElement("div");
  play.className = "pair";
  play.append(playButton("Play", sound, "p", sound));
  const { field, chosen } = options("Quality", [
    ["5", "5 Excellent", "5"], ["4", "4 Good", "4"], ["3", "3 Fair", "3"], ["2", "2 Poor", "2"], ["1", "1 Bad", "1"]]);
  asked.append(play, field);
  return {
    missing: () => (!heard.has(sound) ? "Play the sound." : chosen() ? "" : "Choose a number."),
    answer: () => ({ sound, score: Number(chosen()) }),
  };
}

function abx(trial, asked, draw) {
  const [a, b] = shuffled(trial.sounds, draw);
  const x = draw() < 0.5 ? a : b;
  const play = document.createElement("div");
  play.className = "pair";
  play.append(playButton("A", a, "a", "a"), playButton("B", b, "b", "b"), playButton("X", x, "x", "x"));
  const { field, chosen } = options("X is", [["a", "the same as A", "1"], ["b", "the same as B", "2"]]);
  asked.append(play, field);
  return {
    missing: () => (["a", "b", "x"].every((name) => heard.has(name)) ? (chosen() ? "" : "Choose A or B.") : "Play A, B and X."),
    answer: () => ({ a, b, x, answer: { a, b }[chosen()] }),
  };
}

function mushra(trial, asked, draw) {
  const sounds = shuffled(trial.sounds, draw);
  const open = document.createElement("div");
  open.className = "pair";
  open.append(playButton("Reference", trial.reference, "r", trial.reference));
  const table = document.createElement("div");
  const row = (...cells) => {
    const line = Object.assign(document.createElement("div"), { className: "rated" });
    line.append(...cells);
    table.append(line);
  };
  const scale = Object.assign(document.createElement("div"), { className: "scale" });
  for (const word of ["Bad", "Poor", "Fair", "Good", "Excellent"]) {
    scale.append(Object.assign(document.createElement("span"), { textContent: word }));
  }
  row(document.createElement("span"), scale, document.createElement("span"));
  const scores = {};
  sounds.forEach((sound, number) => {
    const name = `Version ${number + 1}`;
    const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 100, step: 1, value: 50 });
    slider.setAttribute("aria-label", `${name}, from 0 bad to 100 excellent`);
    const output = Object.assign(document.createElement("output"), { textContent: "–" });
    const rate = () => {
      scores[sound] = slider.valueAsNumber;
      output.textContent = slider.value;
      check();
    };
    slider.addEventListener("input", rate);
    slider.addEventListener("change", rate);
    row(playButton(name, sound, String(number + 1), sound), slider, output);
  });
  asked.append(open, table);
  return {
    missing: () => {
      const unheard = [trial.reference, ...sounds].filter((sound) => !heard.has(sound)).length;
      const unrated = sounds.filter((sound) => !(sound in scores)).length;
      if (unheard) return `${unheard} not played yet.`;
      return unrated ? `${unrated} not rated yet: move the slider of each.` : "";
    },
    answer: () => ({ scores: Object.fromEntries(trial.sounds.map((sound) => [sound, scores[sound]])) }),
  };
}

const kinds = { mos, abx, mushra };
let current = null;
function check() {
  if (!current) return;
  const missing = current.missing();
  the("next").disabled = missing !== "";
  the("missing").textContent = missing;
}

function show(id) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
  the(id).querySelector("h2")?.focus();
}

const order = () => shuffled(test.trials, drawing(`${test.test}/${state.listener}/order`));
const left = () => order().filter((trial) => !(trial.id in state.answers));

function ask(trial, title) {
  stop();
  heard.clear();
  the("number").textContent = title;
  the("bar").value = Object.keys(state.answers).length / test.trials.length;
  the("question").textContent = test.question;
  the("asked").replaceChildren();
  current = kinds[test.kind](trial, the("asked"), drawing(`${test.test}/${state.listener}/${trial.id}`));
  current.trial = trial;
  current.begun = Date.now();
  show("trial");
  check();
}

let practised = 0;
function onward() {
  const begun = Object.keys(state.answers).length > 0;
  if (!begun && practised < test.practice.length) {
    practised += 1;
    ask(test.practice[practised - 1], `Practice ${practised} of ${test.practice.length}: does not count`);
    return;
  }
  const [trial] = left();
  if (trial) {
    ask(trial, `Question ${Object.keys(state.answers).length + 1} of ${test.trials.length}`);
    return;
  }
  stop();
  current = null;
  the("save").classList.add("main");
  state.finished ??= new Date().toISOString();
  remember();
  show("done");
}

the("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const listener = the("listener").value.trim();
  if (!listener) return;
  state = remembered(listener) ?? { listener, started: new Date().toISOString(), finished: null, answers: {} };
  remember();
  show("level");
});
connect(the("loudest"), test.loudest, "loudest");
the("loudest").addEventListener("click", () => (the("levelled").disabled = false));
the("levelled").addEventListener("click", () => {
  the("saving").hidden = false;
  onward();
});
the("next").addEventListener("click", () => {
  if (!test.practice.includes(current.trial)) {
    const seconds = Math.round((Date.now() - current.begun) / 100) / 10;
    state.answers[current.trial.id] = { trial: current.trial.id, ...current.answer(), seconds };
    remember();
  }
  onward();
});

the("save").addEventListener("click", () => {
  const answers = order().map((trial) => state.answers[trial.id]).filter(Boolean);
  const { listener, started, finished } = state;
  const content = { test: test.test, kind: test.kind, listener, started, finished, trials: test.trials.length, answers };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1) + "\n"], { type: "application/json" }));
  link.download = `answers_${listener.replace(/[^\p{L}\p{N}_-]/gu, "_")}_${test.test.slice(0, 8)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  the("saved").textContent = `${link.download}: ${answers.length} of ${test.trials.length} answers`;
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.matches("input:not([type=radio], [type=range]), textarea")) return;
  const section = [...document.querySelectorAll("main > section")].find((each) => !each.hidden);
  const wanted = section?.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (wanted) {
    event.preventDefault();
    wanted.click();
    wanted.focus();
  } else if (event.key === "Enter" && section?.id === "trial" && !event.target.matches("button")) {
    the("next").click();
  }
});

the("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  the("theme").setAttribute("aria-pressed", String(!dark));
});
