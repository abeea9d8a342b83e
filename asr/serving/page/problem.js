// What the person at the page can put right, in one line; `field` is the id of what to change, if any.

export class Problem extends Error {
  constructor(message, field = null) {
    super(message);
    this.field = field;
  }
}

export const TOKEN = "This server wants a token: enter it, then press Start.";
export const UNREACHED = "The server cannot be reached: is it running, and does this page come from it?";
