/** What waits to be sent to one API server, in order: new tokens of requests, and replies to calls. */

import { encodeOutputs, encodeReply, type OutputsMessage, type UtilityReply } from './wire/output-message.ts';
import type { WireOutput } from './wire/output-message.ts';

/**
 * Rows of so many bytes are written in one turn of the event loop, about 0.1 ms of copying: steps in between must not
 * wait for the rows of many requests that end together (L6).
 */
const TURN_BYTES = 512 * 1024;

export type MessageHeader = Pick<OutputsMessage, 'engineIndex' | 'timestamp'>;

export class Outbox {
  readonly #items: (WireOutput | UtilityReply)[] = [];
  #finished: string[] = [];
  readonly #numExperts: number;

  constructor(numExperts: number) {
    this.#numExperts = numExperts;
  }

  get isEmpty(): boolean {
    return this.#items.length === 0 && this.#finished.length === 0;
  }

  /** A reply travels alone. */
  get isReplyNext(): boolean {
    const next = this.#items[0];
    return next !== undefined && 'callId' in next;
  }

  push(item: WireOutput | UtilityReply): void {
    this.#items.push(item);
  }

  /** The coordinator's frontends count by these which requests an engine has. */
  noteFinished(requestId: string): void {
    this.#finished.push(requestId);
  }

  clear(): void {
    this.#items.length = 0;
    this.#finished = [];
  }

  /** Takes the next message: a reply, or outputs up to a turn's bytes. `stats` travels with outputs. */
  take(header: MessageHeader, stats: OutputsMessage['stats'] = null): Uint8Array[] {
    const items = this.#items;
    if (this.isReplyNext) return encodeReply(header.engineIndex, header.timestamp, items.shift() as UtilityReply);
    const outputs: WireOutput[] = [];
    let numBytes = 0;
    for (const item of items) {
      if ('callId' in item || numBytes >= TURN_BYTES) break;
      outputs.push(item);
      numBytes += item.rows === null ? 0 : item.rows.count * item.rows.numLayers * item.rows.topK;
    }
    items.splice(0, outputs.length);
    // A request is finished once its last output is sent.
    const finishedRequests = this.#finished.length > 0 && items.length === 0 ? this.#finished : null;
    if (finishedRequests !== null) this.#finished = [];
    return encodeOutputs({ ...header, outputs, stats, finishedRequests }, this.#numExperts);
  }
}
