// On the browser's audio thread: what the microphone hears, in messages of 40 ms. Knows no network.
//
// Out: {pcm: Int16Array's buffer, peak: in [0, 1]} for each message; null after the last.
// In: anything ends it; what was gathered is sent first, so that the last syllable is not lost.

const SECONDS = 0.04; // shorter ones cost the server more than they save

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate * SECONDS);
    this.begin();
    this.port.onmessage = () => {
      this.send();
      this.port.postMessage(null);
      this.ended = true;
    };
  }

  begin() {
    this.samples = new Int16Array(this.size);
    this.count = 0;
    this.peak = 0;
  }

  // One channel: the node mixes down. There is none while the microphone is away.
  process([[channel]]) {
    if (this.ended) return false;
    for (const value of channel ?? []) {
      this.samples[this.count++] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
      this.peak = Math.max(this.peak, Math.abs(value));
      if (this.count === this.size) this.send();
    }
    return true;
  }

  send() {
    const pcm = this.samples.slice(0, this.count).buffer;
    if (this.count) this.port.postMessage({ pcm, peak: this.peak }, [pcm]);
    this.begin();
  }
}

registerProcessor("capture", Capture);
