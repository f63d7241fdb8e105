/** Asks another engine for KV over ZeroMQ, and puts what comes into the words of the hand-over. */

import { Dealer } from 'zeromq';
import type { RowShape } from '../../capture/row-shape.ts';
import { rowsOfBytes } from '../../handover/handed-rows.ts';
import type { KvFetch, KvLoader } from '../../handover/kv-loader.ts';
import type { AnswerHeader, ReadHeader, ReleaseHeader } from './kv-frames.ts';
import { checksumOf, endpoint, isIpv6, parseHeader, PROTOCOL } from './kv-frames.ts';
import { SendQueue } from './send-queue.ts';
import type { HostedKv } from './transfer-params.ts';

export type Fetch = KvFetch<HostedKv>;
/** The loader is told of every reply that it waits for, once. */
export type ReplyEvents = Pick<KvLoader<HostedKv>, 'answered' | 'refused'>;

/** One connection to one engine; many questions may be under way. */
export class KvClient {
  readonly #dealer: Dealer;
  readonly #queue: SendQueue;
  readonly #rowShape: RowShape;
  readonly #events: ReplyEvents;
  /** By the fetch's id, which is also the question's. */
  readonly #pending: Map<number, Fetch> = new Map();
  /** Bytes of KV and rows that came. */
  numBytes = 0;

  constructor({ host, port }: Readonly<{ host: string; port: number }>, rowShape: RowShape, events: ReplyEvents) {
    this.#rowShape = rowShape;
    this.#events = events;
    this.#dealer = new Dealer({ linger: 0, ipv6: isIpv6(host) });
    // An engine that comes back has another id and none of the blocks: no fetch waits for it.
    const lost = (): void => this.#refuseAll(`${host}:${port} cannot be reached`);
    this.#dealer.events.on('disconnect', lost);
    this.#dealer.events.on('connect:retry', lost);
    this.#dealer.connect(endpoint(host, port));
    this.#queue = new SendQueue((frames) => this.#dealer.send(frames));
    void this.#receive();
  }

  /** `rowsDigest`: of the rows that the fetch says were carried. */
  ask(fetch: Fetch, rowsDigest: string | null): void {
    const { id, question } = fetch;
    this.#pending.set(id, fetch);
    const digest = rowsDigest === null ? {} : { rowsDigest };
    const header: ReadHeader = { protocol: PROTOCOL, kind: 'read', id, ...question, ...digest };
    this.#queue.send([JSON.stringify(header)]).catch((error: Error) => this.#refuse(id, error.message));
  }

  /** No reply to this question is waited for. */
  cancel({ id }: Fetch): void {
    this.#pending.delete(id);
  }

  release(engineId: string, requestId: string): void {
    const header: ReleaseHeader = { protocol: PROTOCOL, kind: 'release', engineId, requestId };
    // An engine that does not hear it gives the blocks back when their lease is over.
    this.#queue.send([JSON.stringify(header)]).catch(() => {});
  }

  close(): void {
    this.#refuseAll('the connection was closed');
    this.#dealer.close();
  }

  #refuseAll(reason: string): void {
    for (const id of this.#pending.keys()) this.#refuse(id, reason);
  }

  #refuse(id: number, reason: string): void {
    const fetch = this.#take(id);
    if (fetch !== null) this.#events.refused(fetch, reason);
  }

  async #receive(): Promise<void> {
    for await (const [head, keys, rows] of this.#dealer) {
      const header = parseHeader(head) as AnswerHeader | null;
      if (header === null || header.protocol !== PROTOCOL) continue;
      if (header.error !== null || keys === undefined || rows === undefined) {
        this.#refuse(header.id, header.error ?? 'the answer has frames too few');
        continue;
      }
      const fetch = this.#take(header.id);
      if (fetch !== null) this.#answered(fetch, { header, keys, rows });
    }
  }

  #answered(fetch: Fetch, frames: Readonly<{ header: AnswerHeader; keys: Uint8Array; rows: Uint8Array }>): void {
    const { header, keys, rows } = frames;
    const isIntact = keys.length % 4 === 0 && checksumOf(keys, rows) === header.checksum;
    // The frames may begin anywhere in a buffer of ZeroMQ's: the copies are aligned.
    const words = new Uint32Array(Math.floor(keys.length / 4));
    new Uint8Array(words.buffer).set(keys.subarray(0, words.byteLength));
    const { rowsStart: start, rowsEnd: end } = header;
    this.numBytes += keys.length + rows.length;
    const believed = rowsOfBytes(this.#rowShape, { start, end, bytes: new Uint8Array(rows) });
    this.#events.answered(fetch, { keys: words, rows: believed }, isIntact);
  }

  #take(id: number): Fetch | null {
    const fetch = this.#pending.get(id) ?? null;
    this.#pending.delete(id);
    return fetch;
  }
}
