// What was said so far, and as files. Knows no page; captions are cut as asr/formats.py cuts them.
//
// A word is {text, start, end, confidence}, in seconds from the first start.

const LINE = 42; // characters
const LONGEST = 6000; // milliseconds a caption stands,
const SHORTEST = 1000; // where the next one leaves room
const PAUSE = 0.7; // seconds of silence that always end a caption

export class Transcript {
  words = [];
  tentative = [];
  ends = []; // of segments: after how many words
  seconds = 0; // of sound
  #first = 0; // words and
  #began = 0; // seconds before this stream

  // Another stream goes on where the last one ended.
  begin() {
    this.settle();
    this.#first = this.words.length;
    this.#began = this.seconds;
  }

  // A message of the server.
  add({ words = [], endpoints = [], tentative_words: tentative = [], heard = 0 }) {
    const placed = (word) => ({ ...word, start: word.start + this.#began, end: word.end + this.#began });
    this.words.push(...words.map(placed));
    this.ends.push(...endpoints.map((endpoint) => this.#first + endpoint.words));
    this.tentative = tentative.map(placed);
    this.seconds = Math.max(this.seconds, this.#began + heard);
  }

  // There is no more to come: what is tentative stays as it is, and the segment ends.
  settle() {
    this.words.push(...this.tentative.splice(0));
    this.ends.push(this.words.length);
  }

  // The committed words between endpoints; no segment is empty.
  get segments() {
    const bounds = [0, ...this.ends, this.words.length];
    return bounds.slice(1).map((end, index) => this.words.slice(bounds[index], end)).filter((words) => words.length);
  }
}

export const RENDER = {
  txt: (segments) => segments.map((words) => `${join(words)}\n`).join(""),
  srt: (segments) =>
    captions(segments)
      .map(({ start, end, lines }, index) => `${index + 1}\n${clock(start)} --> ${clock(end)}\n${lines.join("\n")}\n`)
      .join("\n"),
  json: (segments) => `${JSON.stringify(document(segments), null, 1)}\n`,
};

export function join(words) {
  return words.map((word) => word.text).join(" ");
}

function document(segments) {
  return {
    text: segments.map(join).join(" "),
    words: segments.flat().map(({ text, start, end, confidence }) => ({
      text,
      start: rounded(start),
      end: rounded(end),
      confidence: rounded(confidence),
    })),
    segments: segments.map((words) => ({
      text: join(words),
      start: rounded(words[0].start),
      end: rounded(words.at(-1).end),
      confidence: rounded(words.reduce((sum, word) => sum + word.confidence, 0) / words.length),
    })),
  };
}

function rounded(value) {
  return Math.round(1000 * value) / 1000;
}

function captions(segments) {
  const groups = segments.flatMap((words) => phrases(words.flatMap(pieces)).flatMap(fitting));
  const starts = groups.map((group) => Math.round(1000 * group[0].start));
  const timed = [];
  groups.forEach((group, index) => {
    const start = Math.max(starts[index], timed.at(-1)?.end ?? 0);
    let end = Math.max(Math.round(1000 * group.at(-1).end), start + SHORTEST);
    end = Math.min(end, start + LONGEST, starts[index + 1] ?? Infinity);
    timed.push({ start, end: Math.max(end, start + 1), lines: lines(group) ?? [] });
  });
  return timed;
}

// The word; where it is longer than a line (scripts without spaces), parts with shares of its time.
function pieces({ text, start, end }) {
  const letters = [...text];
  const count = Math.ceil(letters.length / LINE);
  const share = (end - start) / Math.max(1, count);
  return Array.from({ length: count }, (_, index) => ({
    text: letters.slice(index * LINE, (index + 1) * LINE).join(""),
    start: start + index * share,
    end: start + (index + 1) * share,
  }));
}

// Runs of words without a long pause in them.
function phrases(words) {
  const runs = [];
  words.forEach((word, index) => {
    if (index === 0 || word.start - words[index - 1].end >= PAUSE) runs.push([]);
    runs.at(-1).push(word);
  });
  return runs;
}

// A phrase in captions that fit, each but the last broken at the longest pause of its second half.
function fitting(phrase) {
  const groups = [];
  while (phrase.length) {
    let count = 1;
    while (count < phrase.length && fits(phrase.slice(0, count + 1))) count++;
    if (count < phrase.length) {
      const pause = (cut) => Math.round(100 * (phrase[cut].start - phrase[cut - 1].end));
      let best = Math.floor((count + 1) / 2);
      for (let cut = best + 1; cut <= count; cut++) if (pause(cut) >= pause(best)) best = cut;
      count = best;
    }
    groups.push(phrase.slice(0, count));
    phrase = phrase.slice(count);
  }
  return groups;
}

function fits(words) {
  return 1000 * (words.at(-1).end - words[0].start) <= LONGEST && lines(words) !== null;
}

// One line, or two of lengths as equal as can be; null if there is more than two lines hold.
function lines(words) {
  const whole = join(words);
  if (length(whole) <= LINE) return [whole];
  let best = null;
  for (let cut = 1; cut < words.length; cut++) {
    const pair = [join(words.slice(0, cut)), join(words.slice(cut))];
    const difference = Math.abs(length(pair[0]) - length(pair[1]));
    if (Math.max(...pair.map(length)) <= LINE && (!best || difference < best.difference)) best = { pair, difference };
  }
  return best && best.pair;
}

// In characters; JavaScript counts some of them twice.
function length(text) {
  return [...text].length;
}

function clock(milliseconds) {
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  const seconds = milliseconds / 1000;
  const thousandths = String(milliseconds % 1000).padStart(3, "0");
  return `${two(seconds / 3600)}:${two((seconds / 60) % 60)}:${two(seconds % 60)},${thousandths}`;
}
