/** Asks another engine for KV over ZeroMQ, and puts what comes into the words of the hand-over. */

import { Dealer } from 'zeromq';
import type { RowShape } from '../../capture/row-shape.ts';
import { rowsOfBytes } from '../../handover/handed-rows.ts';
import type { KvFetch, KvLoader } from '../../handover/kv-loader.ts';
import { rowsDigest } from './carried-rows.ts';
import type { AnswerHeader, ReadHeader, ReleaseHeader } from './kv-frames.ts';
import { checksumOf, endpoint, isIpv6, parseHeader, PROTOCOL } from './kv-frames.ts';
import { Limited } from './limited.ts';
import type { HostedKv } from './transfer-params.ts';

export type Fetch = KvFetch<HostedKv>;
/** The loader is told of every reply that it waits for, once. */
export type ReplyEvents = Pick<KvLoader<HostedKv>, 'answered' | 'refused'>;

/** One connection to one engine; many questions may be under way. */
export class KvClient {
  readonly #dealer: Dealer;
  /** A ZeroMQ socket takes no second message while it is taking the first. */
  readonly #sending: Limited = new Limited(1);
  readonly #rowShape: RowShape;
  readonly #events: ReplyEvents;
  /** By the fetch's id, which is also the question's. */
  readonly #pending: Map<number, Fetch> = new Map();

  constructor({ host, port }: Readonly<{ host: string; port: number }>, rowShape: RowShape, events: ReplyEvents) {
    this.#rowShape = rowShape;
    this.#events = events;
    this.#dealer = new Dealer({ linger: 0, ipv6: isIpv6(host) });
    // An engine that comes back has another id and none of the blocks: no fetch waits for it.
    const lost = (): void => this.#refuseAll(`${host}:${port} cannot be reached`);
    this.#dealer.events.on('disconnect', lost);
    this.#dealer.events.on('connect:retry', lost);
    this.#dealer.connect(endpoint(host, port));
    void this.#receive();
  }

  /** Never rejects. */
  async ask(fetch: Fetch): Promise<void> {
    const { id, question, carried } = fetch;
    this.#pending.set(id, fetch);
    try {
      const digest = carried === null ? {} : { rowsDigest: await rowsDigest(carried) };
      await this.#send({ protocol: PROTOCOL, kind: 'read', id, ...question, ...digest });
    } catch (error) {
      this.#refuse(id, (error as Error).message);
    }
  }

  /** No reply to this question is waited for. */
  cancel({ id }: Fetch): void {
    this.#pending.delete(id);
  }

  release(engineId: string, requestId: string): void {
    // An engine that does not hear it gives the blocks back when their lease is over.
    this.#send({ protocol: PROTOCOL, kind: 'release', engineId, requestId }).catch(() => {});
  }

  close(): void {
    this.#refuseAll('the connection was closed');
    this.#dealer.close();
  }

  #send(header: ReadHeader | ReleaseHeader): Promise<void> {
    return this.#sending.run(() => this.#dealer.send(JSON.stringify(header)));
  }

  #refuseAll(reason: string): void {
    for (const id of this.#pending.keys()) this.#refuse(id, reason);
  }

  #refuse(id: number, reason: string): void {
    this.#settle(id, (fetch) => this.#events.refused(fetch, reason));
  }

  async #receive(): Promise<void> {
    for await (const [head, keys, rows] of this.#dealer) {
      const header = parseHeader(head) as AnswerHeader | null;
      if (header === null || header.protocol !== PROTOCOL) continue;
      if (header.error !== null || keys === undefined || rows === undefined) {
        this.#refuse(header.id, header.error ?? 'the answer has frames too few');
      } else this.#settle(header.id, (fetch) => this.#answered(fetch, { header, keys, rows }));
    }
  }

  #answered(fetch: Fetch, frames: Readonly<{ header: AnswerHeader; keys: Uint8Array; rows: Uint8Array }>): void {
    const { header, keys, rows } = frames;
    const isIntact = keys.length % 4 === 0 && checksumOf(keys, rows) === header.checksum;
    // The frames may begin anywhere in a buffer of ZeroMQ's: the copies are aligned.
    const words = new Uint32Array(new Uint8Array(keys).buffer, 0, Math.floor(keys.length / 4));
    const { rowsStart: start, rowsEnd: end } = header;
    const believed = rowsOfBytes(this.#rowShape, { start, end, bytes: new Uint8Array(rows) });
    this.#events.answered(fetch, { keys: words, rows: believed }, isIntact);
  }

  /** A reply that is not waited for is ignored. */
  #settle(id: number, end: (fetch: Fetch) => void): void {
    const fetch = this.#pending.get(id);
    if (this.#pending.delete(id)) end(fetch!);
  }
}
