/** Fetches KV from another engine, and checks what comes. */

import { Dealer } from 'zeromq';
import type { AnswerHeader, ReadHeader, ReleaseHeader } from './kv-frames.ts';
import { checksumOf, endpoint, isIpv6, parseHeader, PROTOCOL } from './kv-frames.ts';
import { SendQueue } from './send-queue.ts';

export type KvAnswer = Readonly<{
  keys: Uint32Array<ArrayBuffer>;
  rows: Uint8Array;
  rowsStart: number;
  rowsEnd: number;
}>;

type Pending = Readonly<{ resolve: (answer: KvAnswer) => void; reject: (error: Error) => void; timer: NodeJS.Timeout }>;

/** One connection to one engine; many reads may be under way. */
export class KvClient {
  readonly #dealer: Dealer;
  readonly #queue: SendQueue;
  readonly #pending: Map<number, Pending> = new Map();
  #nextId = 0;

  constructor(host: string, port: number) {
    this.#dealer = new Dealer({ linger: 0, ipv6: isIpv6(host) });
    // An engine that comes back has another id and none of the blocks: nobody waits for it.
    const lost = (): void => this.#rejectAll(`${host}:${port} cannot be reached`);
    this.#dealer.events.on('disconnect', lost);
    this.#dealer.events.on('connect:retry', lost);
    this.#dealer.connect(endpoint(host, port));
    this.#queue = new SendQueue((frames) => this.#dealer.send(frames));
    void this.#receive();
  }

  /** Rejects if the other engine says no, says nothing for `timeoutMs`, or sends what is not what was asked for. */
  read(question: Omit<ReadHeader, 'protocol' | 'kind' | 'id'>, timeoutMs: number): Promise<KvAnswer> {
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<KvAnswer>();
    const timer = setTimeout(() => {
      this.#pending.delete(id);
      reject(new Error(`no answer within ${timeoutMs} ms`));
    }, timeoutMs);
    this.#pending.set(id, { resolve, reject, timer });
    const header: ReadHeader = { protocol: PROTOCOL, kind: 'read', id, ...question };
    this.#queue.send([JSON.stringify(header)]).catch((error: Error) => this.#settle(id)?.reject(error));
    return promise;
  }

  /** Nobody here reads these blocks (any more). */
  release(engineId: string, requestId: string): void {
    const header: ReleaseHeader = { protocol: PROTOCOL, kind: 'release', engineId, requestId };
    // An engine that does not hear it gives the blocks back when their lease is over.
    this.#queue.send([JSON.stringify(header)]).catch(() => {});
  }

  close(): void {
    this.#rejectAll('the connection was closed');
    this.#dealer.close();
  }

  #rejectAll(reason: string): void {
    for (const id of this.#pending.keys()) this.#settle(id)?.reject(new Error(reason));
  }

  async #receive(): Promise<void> {
    for await (const [head, keys, rows] of this.#dealer) {
      const header = parseHeader(head) as AnswerHeader | null;
      if (header === null || header.protocol !== PROTOCOL) continue;
      const pending = this.#settle(header.id);
      if (pending === null) continue;
      if (header.error !== null || keys === undefined || rows === undefined) {
        pending.reject(new Error(header.error ?? 'the answer has frames too few'));
      } else if (keys.length % 4 !== 0 || checksumOf(keys, rows) !== header.checksum) {
        pending.reject(new Error('the KV that came is not what was sent: its checksum is wrong'));
      } else {
        const words = new Uint32Array(keys.length / 4);
        new Uint8Array(words.buffer).set(keys);
        pending.resolve({ keys: words, rows, rowsStart: header.rowsStart, rowsEnd: header.rowsEnd });
      }
    }
  }

  #settle(id: number): Pending | null {
    const pending = this.#pending.get(id);
    if (pending === undefined) return null;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    return pending;
  }
}
