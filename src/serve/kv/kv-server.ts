/** Hands out the KV that is kept here, to engines that ask over ZeroMQ. */

import { Router } from 'zeromq';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { KvKeeper } from '../../handover/kv-keeper.ts';
import type { KvAnswer, KvReply } from '../../handover/kv-message.ts';
import { bytesInTurns } from './carried-rows.ts';
import type { AnswerHeader, ReleaseHeader } from './kv-frames.ts';
import { checksumOf, endpoint, isIpv6, parseHeader, PROTOCOL, questionOf } from './kv-frames.ts';
import { Limited } from './limited.ts';

/** Questions are small; a longer message is none. */
const MAX_QUESTION_BYTES = 64 * 1024;
const NOTHING: KvAnswer = { keys: new Uint32Array(0), rows: null };

export class KvServer {
  readonly port: number;
  readonly #keeper: KvKeeper;
  readonly #router: Router;
  /** A ZeroMQ socket takes no second message while it is taking the first. */
  readonly #sending: Limited = new Limited(1);
  /** Bytes of KV and rows that were sent since the start. */
  numBytes = 0;

  private constructor(keeper: KvKeeper, router: Router, port: number) {
    this.#keeper = keeper;
    this.#router = router;
    this.port = port;
    void this.#serve();
  }

  /** Port 0: any free one. Rejects if the port is taken. */
  static async listen(keeper: KvKeeper, { host, port }: Readonly<{ host: string; port: number }>): Promise<KvServer> {
    const router = new Router({ linger: 0, maxMessageSize: MAX_QUESTION_BYTES, mandatory: true, ipv6: isIpv6(host) });
    await router.bind(endpoint(host, port === 0 ? '*' : port));
    return new KvServer(keeper, router, Number(/:(\d+)$/.exec(router.lastEndpoint ?? '')?.[1]));
  }

  close(): void {
    this.#router.close();
  }

  /** Ends when the socket is closed. */
  async #serve(): Promise<void> {
    for await (const [peer, frame] of this.#router) {
      const header = parseHeader(frame);
      if (peer === undefined || header === null || header['protocol'] !== PROTOCOL) continue;
      const { engineId, requestId } = header as unknown as ReleaseHeader;
      if (header['kind'] === 'release') this.#keeper.release(engineId, requestId);
      if (header['kind'] !== 'read') continue;
      // A peer that is gone when its reply is ready is no concern.
      const reply = (said: KvReply): void => void this.#send(peer, Number(header['id']), said).catch(() => {});
      const question = questionOf(header);
      if (question === null) reply({ refusal: 'the question cannot be read' });
      else this.#keeper.read(question, reply);
    }
  }

  async #send(peer: Uint8Array, id: number, reply: KvReply): Promise<void> {
    const { keys: words, rows: part } = 'refusal' in reply ? NOTHING : reply;
    const keys = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
    const rows = await bytesOf(part);
    const header: AnswerHeader = {
      protocol: PROTOCOL,
      id,
      error: 'refusal' in reply ? reply.refusal : null,
      checksum: checksumOf(keys, rows),
      rowsStart: part?.start ?? 0,
      rowsEnd: part === null ? 0 : part.start + part.count,
    };
    await this.#sending.run(() => this.#router.send([peer, JSON.stringify(header), keys, rows]));
    this.numBytes += keys.length + rows.length;
  }
}

async function bytesOf(rows: RoutedRows | null): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  if (rows !== null) for await (const piece of bytesInTurns(rows)) pieces.push(piece.slice());
  return Buffer.concat(pieces);
}
