// How loud the microphone is, and how late the words are. Knows no network; draws on two <meter>s and the figures
// beside them, which screen readers are not told: they would read out every change.

const QUIETEST = -60; // dB of full scale
const FALL = 20; // dB a second by which the level falls at most

export class Meters {
  constructor(level, levelText, latency, latencyText) {
    this.#elements = { level, levelText, latency, latencyText };
    this.reset();
  }

  #elements;
  #level; // dB
  #sent; // [second of the stream, when it came] of what has not been computed yet
  #seconds; // heard
  #sound; // the last second that was not all zeros
  #built; // seconds of delay that chunk and lookahead make

  reset() {
    this.#level = QUIETEST;
    this.#sent = [];
    this.#seconds = this.#sound = this.#built = 0;
    this.#draw("level", QUIETEST, "");
    this.#draw("latency", 0, "");
  }

  // There is nothing to hear any more; the last latency stays.
  rest() {
    this.#draw("level", QUIETEST, "");
  }

  // The server's first message.
  begin({ latency_ms: milliseconds }) {
    this.#built = milliseconds / 1000;
  }

  heard(seconds, peak) {
    this.#seconds += seconds;
    this.#sent.push([this.#seconds, performance.now()]);
    if (peak) this.#sound = this.#seconds;
    const now = Math.max(QUIETEST, 20 * Math.log10(Math.max(peak, 1e-6)));
    this.#level = Math.max(now, this.#level - FALL * seconds);
    this.#draw("level", this.#level, `${Math.round(this.#level)} dB`);
  }

  // How long ago, at most, a sound was made that this message is the first to know of.
  update({ heard }) {
    let came = null;
    while (this.#sent.length && this.#sent[0][0] <= heard + 1e-3) came = this.#sent.shift()[1];
    if (came === null) return;
    const latency = (performance.now() - came) / 1000 + this.#built;
    this.#draw("latency", latency, `${latency.toFixed(2)} s`);
  }

  // Not even noise for a while: no microphone is as quiet as that.
  get silent() {
    return this.#seconds - this.#sound > 3;
  }

  #draw(name, value, text) {
    this.#elements[name].value = value;
    this.#elements[name].setAttribute("aria-valuetext", text || "none");
    this.#elements[`${name}Text`].textContent = text;
  }
}
