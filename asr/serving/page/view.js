// The transcript on the page: a paragraph a segment, a span a word. Only what is new is drawn.

import { join } from "./transcript.js";

const UNSURE = 0.5; // below it a word is more likely wrong than right

export class View {
  // box: where paragraphs go; announce(text) is called with each segment that has ended.
  constructor(box, announce) {
    this.#box = box;
    this.#announce = announce;
    this.#tentative = Object.assign(document.createElement("span"), { className: "tentative" });
  }

  #box;
  #announce;
  #tentative;
  #paragraph = null; // of the segment that is being said
  #began = 0; // its first word
  #words = 0; // drawn so far
  #ends = 0;

  clear() {
    this.#box.replaceChildren();
    this.#paragraph = null;
    this.#began = this.#words = this.#ends = 0;
  }

  draw({ words, ends, tentative }) {
    const follow = this.#atBottom();
    this.#tentative.remove();
    for (; this.#words < words.length; this.#words++) {
      this.#end(words, ends);
      this.#open(words[this.#words]).append(drawn(words[this.#words]), " ");
    }
    this.#end(words, ends);
    if (tentative.length) {
      this.#tentative.textContent = join(tentative);
      this.#open(tentative[0]).append(this.#tentative);
    }
    if (follow) window.scrollTo({ top: document.documentElement.scrollHeight });
  }

  // Ends the segment if it has ended after the words that are drawn.
  #end(words, ends) {
    for (; ends[this.#ends] <= this.#words; this.#ends++) {
      if (this.#began < this.#words) this.#announce(join(words.slice(this.#began, this.#words)));
      if (this.#paragraph && !this.#paragraph.querySelector(".word")) this.#paragraph.remove();
      this.#paragraph = null;
      this.#began = this.#words;
    }
  }

  #open(word) {
    if (!this.#paragraph) {
      const time = document.createElement("time");
      time.textContent = clock(word.start);
      this.#paragraph = document.createElement("p");
      this.#paragraph.append(time, " ");
      this.#box.append(this.#paragraph);
    }
    return this.#paragraph;
  }

  // Whoever has scrolled back to read is left there.
  #atBottom() {
    const { scrollHeight, scrollTop, clientHeight } = document.documentElement;
    return scrollHeight - scrollTop - clientHeight < 40;
  }
}

function drawn({ text, start, confidence }) {
  const span = Object.assign(document.createElement("span"), { className: "word", textContent: text });
  span.title = `${Math.round(100 * confidence)} % sure, at ${clock(start)}`;
  span.style.setProperty("--sure", `${Math.round(100 * Math.max(0, 1.5 * confidence - 0.5))}%`);
  span.classList.toggle("unsure", confidence < UNSURE);
  return span;
}

export function clock(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const parts = hours ? [hours, String(minutes).padStart(2, "0")] : [minutes];
  return [...parts, String(Math.floor(seconds % 60)).padStart(2, "0")].join(":");
}
