// Where sound comes from: the microphone as it is spoken to, or a recording as a whole. Knows no network.
//
// Both give 16 bit mono. The microphone keeps its own rate: the server resamples, the same way for everybody.

import { Problem, UNREACHED } from "./problem.js";

export const FILE_RATE = 16000; // what models hear

const REFUSED = {
  NotAllowedError: "The microphone was refused: allow it for this page in the browser's settings, then press Start.",
  NotFoundError: "No microphone was found: plug one in, then press Start.",
  NotReadableError: "The microphone cannot be opened: another program may hold it.",
};

export class Microphone {
  // Hears from now on; what comes before `listen` waits for it.
  static async open() {
    if (!navigator.mediaDevices || !window.AudioWorkletNode)
      throw new Problem(
        window.isSecureContext
          ? "This browser gives pages no microphone: use a newer one, or transcribe a file."
          : "Browsers give the microphone only to https:// and to localhost: open the page so, or transcribe a file.",
      );
    // As it is, as models are trained: Chromium's own gain makes the first words of a session 12 dB louder.
    const wanted = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    let media;
    try {
      media = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    } catch (error) {
      throw new Problem(REFUSED[error.name] ?? `The microphone cannot be opened: ${error.message}`);
    }
    const context = new AudioContext({ latencyHint: "interactive" });
    const microphone = new Microphone(media, context);
    try {
      await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    } catch {
      microphone.#release();
      throw new Problem(UNREACHED);
    }
    await context.resume();
    microphone.#connect();
    return microphone;
  }

  #media;
  #context;
  #node;
  #closed = null;

  constructor(media, context) {
    this.#media = media;
    this.#context = context;
  }

  get rate() {
    return this.#context.sampleRate;
  }

  // heard(pcm, peak) for every 40 ms; gone() when it is unplugged or taken away.
  listen(heard, gone) {
    this.#node.port.onmessage = ({ data }) => data && heard(data.pcm, data.peak);
    this.#media.getAudioTracks()[0].addEventListener("ended", gone);
  }

  // Resolves when the last of what was heard has been given.
  close() {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end() {
    const last = new Promise((resolve) => {
      this.#node.port.addEventListener("message", ({ data }) => data || resolve());
      setTimeout(resolve, 3000); // a system that took the microphone away has stopped its thread too
    });
    this.#node.port.postMessage("end");
    await last;
    this.#release();
  }

  #connect() {
    const mono = { channelCount: 1, channelCountMode: "explicit" };
    this.#node = new AudioWorkletNode(this.#context, "capture", mono);
    this.#context.createMediaStreamSource(this.#media).connect(this.#node);
    this.#node.connect(this.#context.destination); // silent; without it some browsers do not run the node
  }

  #release() {
    for (const track of this.#media.getTracks()) track.stop();
    this.#context.close();
  }
}

// The samples of any file that this browser can play, as Int16Array at FILE_RATE.
export async function decode(file) {
  const context = new OfflineAudioContext(1, 1, FILE_RATE);
  let audio;
  try {
    audio = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Problem(`${file.name}: no recording that this browser can read; try WAV, MP3, M4A, FLAC or WebM.`);
  }
  const channels = Array.from({ length: audio.numberOfChannels }, (_, index) => audio.getChannelData(index));
  const samples = new Int16Array(audio.length);
  for (let index = 0; index < samples.length; index++) {
    let sum = 0;
    for (const channel of channels) sum += channel[index];
    const value = Math.round((32768 * sum) / channels.length);
    samples[index] = Math.max(-32768, Math.min(32767, value));
  }
  return samples;
}
