// The page: what its buttons do, and what it shows of a stream. One stream at a time, one transcript for all.

import { FILE_RATE, Microphone, decode } from "./audio.js";
import { Meters } from "./meters.js";
import { Problem, TOKEN, UNREACHED } from "./problem.js";
import { Stream } from "./stream.js";
import { RENDER, Transcript } from "./transcript.js";
import { View, clock } from "./view.js";

const PIECE = FILE_RATE / 2; // samples of a file that are sent at once
const BEHIND = [0.5, 1.5]; // seconds of speech waiting to be sent: told above the second, untold below the first
const LABELS = { idle: "Start", opening: "Opening…", on: "Stop", finishing: "Finishing…" };
const KEPT = "What was said is kept.";
const MUTED = "Nothing but silence comes from the microphone: is it muted?";
const SLOW = "The network or the server is behind: speech waits here to be sent, nothing is lost.";

const $ = (id) => document.getElementById(id);
const meters = new Meters($("level"), $("level-text"), $("latency"), $("latency-text"));
const view = new View($("transcript"), (text) => ($("announced").textContent = text));
let transcript = new Transcript();
let cleared = null; // the transcript before, until the next start
let state = "idle";
let session = null; // {stream, stop(), close()} of what is being transcribed
let typing; // of hotwords: the timer until they are sent
let awake = null; // keeps a phone's screen on: without it the microphone ends

// One stream from its source to its last word. `begin` opens both and gives the session.
async function run(begin) {
  if (state !== "idle") return;
  document.body.dataset.source = begin === microphone ? "microphone" : "file";
  show("opening");
  tell("");
  meters.reset();
  transcript.begin();
  cleared = null;
  let field = null;
  try {
    if (!$("token-field").hidden && !/^[\w.~-]+$/.test(token())) throw new Problem(TOKEN, "token");
    session = await begin();
    show("on");
    await session.stream.ended;
  } catch (problem) {
    if (!(problem instanceof Problem)) console.error(problem);
    tell(session && transcript.words.length + transcript.tentative.length ? `${problem.message} ${KEPT}` : problem.message);
    field = problem.field;
  }
  await session?.close();
  session = null;
  transcript.settle();
  draw();
  meters.rest();
  notice("");
  show("idle");
  if (field) $(`${field}-field`).hidden = false;
  if (field) $(field).focus();
}

function open(rate, progress) {
  clearTimeout(typing); // the start has them
  const start = { type: "start", rate, format: "s16le", hotwords: hotwords(), lag: true };
  const update = (message) => {
    transcript.add(message);
    draw();
    progress(message);
  };
  const ready = (message) => {
    meters.begin(message);
    if (token()) sessionStorage.token = token(); // until the tab is closed
  };
  return new Stream(start, token(), ready, update);
}

async function microphone() {
  const source = await Microphone.open();
  const stream = open(source.rate, (message) => meters.update(message));
  const stop = async () => {
    show("finishing");
    await source.close();
    stream.finish();
  };
  const gone = () => {
    tell(`The microphone is gone: plug it in, then press Start. ${KEPT}`);
    stop();
  };
  let behind = false;
  source.listen((pcm, peak) => {
    stream.send(pcm);
    meters.heard(pcm.byteLength / 2 / source.rate, peak);
    behind = stream.waiting > BEHIND[behind ? 0 : 1];
    notice(behind ? SLOW : meters.silent ? MUTED : "");
  }, gone);
  return { stream, stop, close: () => source.close() };
}

async function recording(file) {
  const samples = await decode(file);
  const seconds = samples.length / FILE_RATE;
  const stream = open(FILE_RATE, ({ heard }) => {
    $("progress").value = heard / seconds;
    $("progress-text").textContent = `${clock(Math.min(heard, seconds))} of ${clock(seconds)}`;
  });
  let stopped = false; // by its reader
  let over = false;
  const feed = async () => {
    for (let from = 0; from < samples.length && !stopped && !over; from += PIECE) {
      while (stream.full && !stopped && !over) await new Promise((resolve) => setTimeout(resolve, 20));
      stream.send(samples.slice(from, from + PIECE).buffer);
    }
    if (over) return;
    show("finishing");
    stream.finish();
  };
  setTimeout(feed); // when the page shows that it is on
  return { stream, stop: () => (stopped = true), close: () => (over = true) };
}

// What the page shows

function show(now) {
  state = now;
  document.body.dataset.state = now;
  $("label").textContent = LABELS[now];
  $("start").ariaDisabled = String(!["idle", "on"].includes(now)); // not disabled: it would lose the focus
  $("choose").disabled = $("clear").disabled = now !== "idle";
  $("token").disabled = now !== "idle";
  stayAwake(now === "on");
}

function draw() {
  view.draw(transcript);
  $("empty").hidden = Boolean(transcript.words.length || transcript.tentative.length);
  $("legend").hidden = !$("empty").hidden;
  $("save").hidden = !transcript.words.length && !cleared;
  $("copy").disabled = !transcript.words.length;
  for (const button of document.querySelectorAll(".save")) button.disabled = !transcript.words.length;
  $("clear").textContent = cleared ? "Undo" : "Clear";
}

function tell(problem) {
  $("problem").textContent = problem;
}

function notice(text) {
  if ($("notice").textContent !== text) $("notice").textContent = text; // else it is read out each time
}

async function stayAwake(wanted) {
  if (!wanted) {
    awake?.release();
    awake = null;
  } else if (!awake || awake.released) {
    awake = await navigator.wakeLock?.request("screen").catch(() => null);
    if (state !== "on") stayAwake(false);
  }
}

// What its controls do

function token() {
  return $("token").value.trim();
}

function hotwords() {
  const lines = $("hotwords").value.split("\n").map((line) => line.trim());
  return lines.filter(Boolean);
}

function save(format) {
  const url = URL.createObjectURL(new Blob([RENDER[format](transcript.segments)], { type: "application/octet-stream" }));
  const now = new Date();
  const date = new Date(now - now.getTimezoneOffset() * 60000).toISOString().slice(0, 16).replace(/[T:]/g, "-");
  Object.assign(document.createElement("a"), { href: url, download: `transcript-${date}.${format}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function clear() {
  [transcript, cleared] = cleared ? [cleared, null] : [new Transcript(), transcript];
  view.clear();
  draw();
}

$("token-field").onsubmit = (event) => {
  event.preventDefault();
  run(microphone);
};
$("start").onclick = () => {
  if (state === "idle") run(microphone);
  else if (state === "on") session.stop();
};
$("choose").onclick = () => $("file").click();
$("file").onchange = () => {
  const [file] = $("file").files;
  if (file) run(() => recording(file));
  $("file").value = ""; // the same one again is a change too
};
$("clear").onclick = clear;
$("copy").onclick = async () => {
  await navigator.clipboard.writeText(RENDER.txt(transcript.segments));
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
};
$("copy").hidden = !navigator.clipboard; // as on insecure origins
for (const button of document.querySelectorAll(".save")) button.onclick = () => save(button.dataset.format);

$("hotwords").oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(() => session?.stream.setHotwords(hotwords()), 700);
};

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.toggle("dropping", state === "idle");
});
addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file) run(() => recording(file));
});
addEventListener("beforeunload", (event) => session && event.preventDefault());
addEventListener("visibilitychange", () => !document.hidden && state === "on" && stayAwake(true));

async function greet() {
  // #token=... in a link is kept out of servers' logs, and then out of the address too.
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) history.replaceState(null, "", location.pathname);
  try {
    const about = await (await fetch("page/about.json")).json();
    $("about").textContent = about.model;
    $("hotwords-field").hidden = !about.hotwords;
    $("token-field").hidden = !about.token;
    $("token").value = given ?? sessionStorage.token ?? "";
  } catch {
    tell(UNREACHED);
  }
}

show("idle");
draw();
greet();
