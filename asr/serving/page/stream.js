// The native protocol (docs/serving.md): one stream of audio out, words in. Knows no page and no microphone.

import { Problem, TOKEN, UNREACHED } from "./problem.js";

const PATIENCE = 30; // seconds without an answer to the first or the last message
const AHEAD = 1 << 17; // bytes of a file that wait in the socket

export class Stream {
  // start: the protocol's first message; token: "" for none. ready(message) is called once, update(message)
  // for each, the last one too. Audio may be sent at once: it waits until the server is ready.
  constructor(start, token, ready, update) {
    const url = new URL("v1/stream", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    this.#bytes = 2 * start.rate; // a second
    this.#socket = new WebSocket(url, token ? ["asr", `bearer.${token}`] : []); // browsers send no headers
    this.#socket.binaryType = "arraybuffer";
    this.#ready = ready;
    this.#update = update;
    // Resolves when the server has sent its last word; rejects with a Problem.
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.ended.catch(() => {}); // it is told to who awaits it, be it later
    this.#socket.onopen = () => this.#socket.send(JSON.stringify(start));
    this.#socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    this.#socket.onclose = ({ code }) => this.#fail(closed(code, this.#open));
    this.#wait();
  }

  #socket;
  #bytes;
  #ready;
  #update;
  #resolve;
  #reject;
  #timer;
  #open = false; // the server is ready
  #finishing = false;
  #queue = []; // what is to be sent then

  // Seconds of audio that have not left this computer.
  get waiting() {
    const queued = this.#queue.reduce((sum, data) => sum + (data.byteLength ?? 0), 0);
    return (this.#socket.bufferedAmount + queued) / this.#bytes;
  }

  // Whether the network and the server are still busy with what was sent of a file.
  get full() {
    return !this.#open || this.#socket.bufferedAmount > AHEAD;
  }

  // pcm: an ArrayBuffer of 16 bit samples.
  send(pcm) {
    this.#send(pcm);
  }

  setHotwords(hotwords) {
    if (!this.#finishing) this.#send(JSON.stringify({ type: "hotwords", hotwords }));
  }

  finish() {
    if (this.#finishing) return;
    this.#finishing = true;
    this.#send('{"type":"finish"}');
    this.#wait();
  }

  #send(data) {
    if (!this.#open) this.#queue.push(data);
    else if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(data);
  }

  #hear(message) {
    clearTimeout(this.#timer);
    if (message.type === "error") return this.#fail(told(message));
    if (message.type === "ready") {
      this.#open = true;
      this.#queue.splice(0).forEach((data) => this.#send(data));
      this.#ready(message);
    } else {
      this.#update(message);
    }
    // Finished by itself, it says why in another message.
    if (message.type === "finished" && this.#finishing) this.#done(this.#resolve);
    else if (message.type === "finished" || this.#finishing) this.#wait();
  }

  // A server that takes long to compute still sends updates: only silence is given up on.
  #wait() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#finishing && this.waiting) this.#wait();
      else this.#fail(new Problem("The server does not answer."));
    }, 1000 * PATIENCE);
  }

  #fail(problem) {
    this.#done(() => this.#reject(problem));
  }

  #done(settle) {
    clearTimeout(this.#timer);
    this.#socket.onclose = this.#socket.onmessage = null;
    this.#socket.close();
    settle();
  }
}

function told({ code, message, retry_after: seconds }) {
  if (code === "unauthorised") return new Problem(TOKEN, "token");
  if (code === "busy") {
    const when = seconds ? `in ${Math.ceil(seconds)} s` : "later";
    return new Problem(`The server is busy: press Start again ${when}.`);
  }
  return new Problem(`${message[0].toUpperCase()}${message.slice(1)}`);
}

function closed(code, open) {
  if (!open) return new Problem(UNREACHED);
  if (code === 1000) return new Problem("The server has ended the stream.");
  return new Problem(`The connection to the server was lost (${code}).`);
}
