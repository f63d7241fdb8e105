/** Connections to the engines that have KV for this one. */

import type { RowShape } from '../../capture/row-shape.ts';
import { rowsDigest } from './carried-rows.ts';
import { KvClient, type Fetch, type ReplyEvents } from './kv-client.ts';
import type { HostedKv } from './transfer-params.ts';

/** The connection that was opened longest ago makes room for a new one. */
const MAX_CLIENTS = 64;

export class KvPeers {
  readonly #rowShape: RowShape;
  readonly #events: ReplyEvents;
  readonly #clients: Map<string, KvClient> = new Map();
  /** Of connections that are closed. */
  #earlierBytes = 0;

  constructor(rowShape: RowShape, events: ReplyEvents) {
    this.#rowShape = rowShape;
    this.#events = events;
  }

  /** Bytes of KV and rows that came since the start. */
  get numBytes(): number {
    let sum = this.#earlierBytes;
    for (const { numBytes } of this.#clients.values()) sum += numBytes;
    return sum;
  }

  ask(fetch: Fetch): void {
    const { carried, handover } = fetch;
    if (carried === null) this.#client(handover.remote).ask(fetch, null);
    else void rowsDigest(carried).then((digest) => this.#client(handover.remote).ask(fetch, digest));
  }

  cancel(fetch: Fetch): void {
    for (const client of this.#clients.values()) client.cancel(fetch);
  }

  release(remote: HostedKv): void {
    this.#client(remote).release(remote.engineId, remote.requestId);
  }

  close(): void {
    for (const address of this.#clients.keys()) this.#close(address);
  }

  #client({ host, port }: HostedKv): KvClient {
    const address = `${host}:${port}`;
    let client = this.#clients.get(address);
    if (client === undefined) {
      const oldest = this.#clients.keys().next().value;
      if (oldest !== undefined && this.#clients.size >= MAX_CLIENTS) this.#close(oldest);
      client = new KvClient({ host, port }, this.#rowShape, this.#events);
      this.#clients.set(address, client);
    }
    return client;
  }

  #close(address: string): void {
    const client = this.#clients.get(address)!;
    this.#clients.delete(address);
    this.#earlierBytes += client.numBytes;
    // Loads that wait for this connection fail, but not inside the call that begins another load.
    queueMicrotask(() => client.close());
  }
}
