/** One message after the other: a ZeroMQ socket takes no second one while it is taking the first. */

type Frames = (string | Uint8Array)[];

export class SendQueue {
  readonly #send: (frames: Frames) => Promise<void>;
  #last: Promise<void> = Promise.resolve();

  constructor(send: (frames: Frames) => Promise<void>) {
    this.#send = send;
  }

  /** Resolves when the socket has taken the message; rejects if it is closed. */
  send(frames: Frames): Promise<void> {
    const sent = this.#last.then(() => this.#send(frames));
    this.#last = sent.catch(() => {});
    return sent;
  }
}
