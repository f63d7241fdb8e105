/** Hands out the KV that is kept here, to engines that ask over ZeroMQ. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { Router } from 'zeromq';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { rowPieces } from '../../rows/row-pieces.ts';
import { completeRows, rowsDigest as digestOf } from './carried-rows.ts';
import type { KeptKv, KeptRequest } from './kept-kv.ts';
import type { AnswerHeader, ReadHeader } from './kv-frames.ts';
import { checksumOf, endpoint, isIpv6, parseHeader, PROTOCOL, tokenDigest } from './kv-frames.ts';
import { SendQueue } from './send-queue.ts';

/** Questions are small; whatever is longer is none. */
const MAX_QUESTION_BYTES = 64 * 1024;

export type KvServerOptions = Readonly<{
  host: string;
  /** 0: any free one. */
  port: number;
  engineId: string;
  shape: string;
  blockSize: number;
  kept: KeptKv;
  readKv: (blockIds: readonly number[]) => Promise<Uint32Array>;
}>;

type Answer = Readonly<{ keys: Uint8Array; rows: Uint8Array; rowsStart: number; rowsEnd: number }>;

const NOTHING = new Uint8Array(0);

export class KvServer {
  readonly port: number;
  readonly #options: KvServerOptions;
  readonly #router: Router;
  readonly #queue: SendQueue;
  /** Bytes sent since the start. */
  numBytesSent = 0;

  private constructor(options: KvServerOptions, router: Router, port: number) {
    this.#options = options;
    this.#router = router;
    this.port = port;
    this.#queue = new SendQueue((frames) => router.send(frames));
    void this.#serve();
  }

  /** Rejects if the port is taken. */
  static async listen(options: KvServerOptions): Promise<KvServer> {
    const { host, port } = options;
    const router = new Router({ linger: 0, maxMessageSize: MAX_QUESTION_BYTES, mandatory: true, ipv6: isIpv6(host) });
    await router.bind(endpoint(host, port === 0 ? '*' : port));
    return new KvServer(options, router, Number(/:(\d+)$/.exec(router.lastEndpoint ?? '')?.[1]));
  }

  close(): void {
    this.#router.close();
  }

  /** Ends when the socket is closed. */
  async #serve(): Promise<void> {
    for await (const [peer, frame] of this.#router) {
      const header = parseHeader(frame);
      if (peer === undefined || header === null || header['protocol'] !== PROTOCOL) continue;
      if (header['engineId'] === this.#options.engineId && header['kind'] === 'release') {
        this.#options.kept.release(String(header['requestId']));
      } else if (header['kind'] === 'read') {
        // Not awaited: a long read does not hold up the next. A peer that is gone by then is no concern.
        this.#answer(peer, header as unknown as ReadHeader).catch(() => {});
      }
    }
  }

  async #answer(peer: Uint8Array, question: ReadHeader): Promise<void> {
    let answer: Answer | null = null;
    let error: string | null = null;
    try {
      answer = await this.#read(question);
    } catch (problem) {
      error = problem instanceof Error ? problem.message : String(problem);
    }
    const { keys, rows, rowsStart, rowsEnd } = answer ?? { keys: NOTHING, rows: NOTHING, rowsStart: 0, rowsEnd: 0 };
    const header: AnswerHeader = {
      protocol: PROTOCOL,
      id: question.id,
      error,
      checksum: checksumOf(keys, rows),
      rowsStart,
      rowsEnd,
    };
    await this.#queue.send([peer, JSON.stringify(header), keys, rows]);
    this.numBytesSent += keys.length + rows.length;
  }

  async #read(question: ReadHeader): Promise<Answer> {
    const { engineId, requestId, from, to, rowsStart, rowsDigest, shape, tokens } = question;
    const { kept, blockSize, readKv } = this.#options;
    if (engineId !== this.#options.engineId) throw new Error(`engine ${engineId} is not here; it may have restarted`);
    if (shape !== this.#options.shape) throw new Error(`the KV here is of ${this.#options.shape}, not of ${shape}`);
    const request = kept.get(requestId);
    if (request === null) throw new Error(`no KV is kept for request ${requestId}; its lease may be over`);
    const isRange = Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from < to && from % blockSize === 0;
    if (!isRange || to > request.numTokens)
      throw new Error(`[${from}, ${to}) is not within ${request.numTokens} tokens`);
    if (to > request.promptTokenIds.length || tokenDigest(request.promptTokenIds, to) !== tokens) {
      throw new Error(`request ${requestId} has other tokens here`);
    }
    return kept.reading(requestId, async () => {
      if (rowsDigest !== undefined && rowsDigest !== (await carriedDigest(request))) {
        throw new Error(`the rows that were carried are not those of request ${requestId}`);
      }
      const keys = await readKv(request.blockIds.slice(from / blockSize, Math.ceil(to / blockSize)));
      return {
        keys: new Uint8Array(keys.buffer, keys.byteOffset, keys.byteLength),
        ...(await rowsOf(request, rowsStart, to)),
      };
    });
  }
}

/** Of the rows that the proxy was given, if it was given any. */
async function carriedDigest({ rows, numTokens }: KeptRequest): Promise<string | null> {
  const complete = completeRows(rows, numTokens);
  return complete === null ? null : digestOf(complete);
}

/** The rows from `start` to `to`, or none if they are not all there: a gap must not be filled in by anybody (L4). */
async function rowsOf(request: KeptRequest, start: number | null, to: number): Promise<Omit<Answer, 'keys'>> {
  const none = { rows: NOTHING, rowsStart: 0, rowsEnd: 0 };
  const { rows } = request;
  if (start === null || rows === null || rows.start > start || rows.start + rows.count < to || start >= to) return none;
  if (rows.missing.some(([gapFrom, gapTo]) => gapTo > start && gapFrom < to)) return none;
  const part: RoutedRows = { ...rows, start, count: to - start, missing: [] };
  const pieces: Uint8Array[] = [];
  for (const piece of rowPieces(part, rows.dtype === 'uint8' ? 'uint8' : 'uint16', 0)) {
    pieces.push(piece.slice());
    await nextTurn();
  }
  return { rows: Buffer.concat(pieces), rowsStart: start, rowsEnd: to };
}
