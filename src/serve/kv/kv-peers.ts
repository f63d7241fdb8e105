/** Connections to the engines that have KV for this one. */

import type { RowShape } from '../../capture/row-shape.ts';
import { KvClient, type ReplyEvents } from './kv-client.ts';

/** The connection that was opened longest ago makes room for a new one. */
const MAX_CLIENTS = 64;

export class KvPeers {
  readonly #rowShape: RowShape;
  readonly #events: ReplyEvents;
  readonly #clients: Map<string, KvClient> = new Map();

  constructor(rowShape: RowShape, events: ReplyEvents) {
    this.#rowShape = rowShape;
    this.#events = events;
  }

  /** Connects if there is no connection. */
  at({ host, port }: Readonly<{ host: string; port: number }>): KvClient {
    const address = `${host}:${port}`;
    let client = this.#clients.get(address);
    if (client === undefined) {
      if (this.#clients.size >= MAX_CLIENTS) this.#close(this.#clients.keys().next().value!);
      client = new KvClient({ host, port }, this.#rowShape, this.#events);
      this.#clients.set(address, client);
    }
    return client;
  }

  close(): void {
    for (const address of this.#clients.keys()) this.#close(address);
  }

  #close(address: string): void {
    const client = this.#clients.get(address)!;
    this.#clients.delete(address);
    // Loads that wait for this connection fail, but not inside the call that begins another load.
    queueMicrotask(() => client.close());
  }
}
