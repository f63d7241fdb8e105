/** Messages on their way into a socket, in order: a ZeroMQ socket takes no second one while it is taking the first. */

type Sender = Readonly<{ send: (frames: Uint8Array[]) => Promise<void> }>;

export class SendQueue {
  readonly #socket: Sender;
  #waiting: Uint8Array[][] = [];
  #sending: Promise<void> | null = null;

  constructor(socket: Sender) {
    this.#socket = socket;
  }

  push(frames: Uint8Array[]): void {
    this.#waiting.push(frames);
    this.#sending ??= this.#send();
  }

  /** Resolves when ZeroMQ has every message. */
  async drained(): Promise<void> {
    while (this.#sending !== null) await this.#sending;
  }

  async #send(): Promise<void> {
    try {
      for (let frames = this.#waiting.shift(); frames !== undefined; frames = this.#waiting.shift()) {
        await this.#socket.send(frames);
      }
    } catch {
      // The socket was closed: nobody is there for what waits.
      this.#waiting = [];
    } finally {
      this.#sending = null;
    }
  }
}
