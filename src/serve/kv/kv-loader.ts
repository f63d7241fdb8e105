/** Fetches what a load needs from the engine that has it: keys of blocks, and the rows that belong to them. */

import { rowShape, viewRows } from '../../capture/row-shape.ts';
import type { ModelConfig } from '../../contract/config.ts';
import type { KvLoad } from '../../contract/kv-connector.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { rowsDigest } from './carried-rows.ts';
import type { KvAnswer, KvClient } from './kv-client.ts';
import { tokenDigest } from './kv-frames.ts';
import type { PdRows, RemoteKv } from './transfer-params.ts';

/** The choices of one request: they have one prompt, and begin with one KV. */
export type RemoteHandover = Readonly<{
  remote: RemoteKv;
  promptTokenIds: Uint32Array;
  /** From where on rows are wanted; `null`: none are. */
  rowsStart: number | null;
  /** Requests of the engine that may still fetch. */
  readers: Set<string>;
  /** Answers under way, by the range that was asked for: choices that begin together fetch once. */
  reads: Map<string, Promise<KvAnswer>>;
}>;

/** `rows`: `null` if none are wanted, or there are none. `keys` are the caller's. */
export type LoadedKv = Readonly<{ keys: Uint32Array<ArrayBuffer>; rows: RoutedRows | null }>;

export type KvLoaderOptions = Readonly<{
  model: ModelConfig;
  blockSize: number;
  /** See `shapeOf`. */
  shape: string;
  rows: PdRows;
  /** How long fetching may take, ms. */
  loadMs: number;
}>;

/** Connections to other engines; one that was opened longest ago makes room for a new one. */
const MAX_CLIENTS = 64;

export class KvLoader {
  readonly #options: KvLoaderOptions;
  readonly #clients: Map<string, KvClient> = new Map();
  readonly #connect: (host: string, port: number) => KvClient;
  /** Bytes of KV and rows that came since the start. */
  numBytes = 0;

  private constructor(options: KvLoaderOptions, connect: (host: string, port: number) => KvClient) {
    this.#options = options;
    this.#connect = connect;
  }

  /** Loads ZeroMQ, which only those need who share KV. */
  static async open(options: KvLoaderOptions): Promise<KvLoader> {
    const { KvClient } = await import('./kv-client.ts');
    return new KvLoader(options, (host, port) => new KvClient(host, port));
  }

  /** Rejects if the other engine says no, or nothing, or sends what was not asked for. */
  async load(load: KvLoad, handover: RemoteHandover): Promise<LoadedKv> {
    const answer = await this.#fetch(load, handover);
    const numBlocks = load.blockIds.length;
    if (answer.keys.length !== numBlocks * this.#options.blockSize * 2) {
      throw new Error(`${answer.keys.length} words of KV came for ${numBlocks} blocks`);
    }
    // Other choices may be waiting for them too.
    return { keys: answer.keys.slice(), rows: this.#rowsOf(answer, load, handover) };
  }

  /** The request fetches no more. When none of its choices does, the other engine is told. */
  release({ readers, remote }: RemoteHandover, reader: string): void {
    if (!readers.delete(reader) || readers.size > 0) return;
    this.#client(remote).release(remote.engineId, remote.requestId);
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  #fetch(load: KvLoad, handover: RemoteHandover): Promise<KvAnswer> {
    const key = `${load.from} ${load.to}`;
    let read = handover.reads.get(key);
    if (read === undefined) {
      read = this.#read(load, handover).finally(() => handover.reads.delete(key));
      handover.reads.set(key, read);
    }
    return read;
  }

  async #read({ from, to }: KvLoad, handover: RemoteHandover): Promise<KvAnswer> {
    const { remote, promptTokenIds, rowsStart } = handover;
    const way = this.#wayOf(handover);
    const start = Math.max(rowsStart ?? 0, from);
    const answer = await this.#client(remote).read(
      {
        engineId: remote.engineId,
        requestId: remote.requestId,
        from,
        to,
        rowsStart: way === 'with-kv' && start < to ? start : null,
        ...(way === 'carry' ? { rowsDigest: await rowsDigest(remote.carried!) } : {}),
        shape: this.#options.shape,
        tokens: tokenDigest(promptTokenIds, to),
      },
      this.#options.loadMs,
    );
    this.numBytes += answer.keys.byteLength + answer.rows.byteLength;
    return answer;
  }

  /** Which way the rows come; `null`: none are wanted, or there are none. */
  #wayOf({ remote, rowsStart }: RemoteHandover): PdRows | null {
    if (rowsStart === null) return null;
    if (this.#options.rows === 'splice') return 'splice';
    if (remote.carried !== null) return 'carry';
    return remote.hasRows ? 'with-kv' : null;
  }

  /** Throws if they are not those that were promised: L4 leaves no third way. */
  #rowsOf(answer: KvAnswer, load: KvLoad, handover: RemoteHandover): RoutedRows | null {
    const way = this.#wayOf(handover);
    if (way === null) return null;
    if (way === 'carry') return handover.remote.carried;
    const start = Math.max(handover.rowsStart!, load.from);
    const count = Math.max(0, load.to - start);
    const shape = rowShape(this.#options.model);
    const none: RoutedRows = {
      start,
      count,
      numLayers: shape.numLayers,
      topK: shape.topK,
      dtype: shape.dtype,
      rowsPerChunk: Math.max(1, count),
      chunkOrigin: start,
      chunks: [null],
      missing: count > 0 ? [[start, load.to]] : [],
    };
    if (way === 'splice' || count === 0) return none;
    const isWhole = answer.rowsStart === start && answer.rowsEnd === load.to;
    if (!isWhole || answer.rows.length !== count * shape.bytesPerRow) {
      throw new Error('the rows did not come with the KV');
    }
    return { ...none, chunks: [viewRows(shape, answer.rows.slice(), count)], missing: [] };
  }

  #client({ host, port }: RemoteKv): KvClient {
    const address = `${host}:${port}`;
    let client = this.#clients.get(address);
    if (client === undefined) {
      const oldest = this.#clients.size < MAX_CLIENTS ? undefined : this.#clients.entries().next().value;
      if (oldest !== undefined) {
        this.#clients.delete(oldest[0]);
        oldest[1].close();
      }
      client = this.#connect(host, port);
      this.#clients.set(address, client);
    }
    return client;
  }
}
