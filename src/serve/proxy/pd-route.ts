/**
 * The life of one request in the proxy:
 *
 *     client ─▶ read ─▶ prefill server: one token, KV kept
 *                         └─ kv_transfer_params ─▶ decode server ─▶ its answer, as it comes ─▶ client
 *
 * A client that leaves ends the leg that is under way. KV that was kept and not fetched then goes when its lease is
 * over.
 */

import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Admission } from '../admission.ts';
import { isObject } from '../../rows/json-object.ts';
import { BodyFields } from '../body/body-fields.ts';
import { HttpError } from '../http-error.ts';
import { writeAnswer } from '../answer/response-writer.ts';
import { readGenerateRowFields, readRowFields } from '../body/row-fields.ts';
import type { Backend } from './backend.ts';
import type { BackendPool } from './backend-pool.ts';
import { failureOf, sendLeg } from './leg.ts';
import type { ProxyConfig } from './proxy-config.ts';
import type { ProxyMetrics } from './proxy-metrics.ts';
import { Splicer } from './splice.ts';
import { peek, readText, splicedEvents, splicedJson } from './spliced-answer.ts';
import type { PdPath } from './two-legs.ts';
import { canBeSplit, checkClientBody, decodeBody, prefillBody } from './two-legs.ts';

type Json = Readonly<Record<string, unknown>>;

export type PdServices = Readonly<{
  config: ProxyConfig;
  admission: Admission;
  metrics: ProxyMetrics;
  prefill: BackendPool;
  decode: BackendPool;
  /** Of every request under way: to end them all. */
  running: Set<AbortController>;
}>;

/**
 * A prefill server that loses its workers loses the KV that it kept. One that decodes and may not compute the prompt
 * itself then fails before its first token, so both legs can be sent again: this often in all, and not once the time
 * for a prefill is over.
 */
const MAX_HANDOVERS = 16;
/** As it stands in an error; text of a model would have its quotes escaped. */
const KV_LOAD_FAILED = '"code":"kv_load_failed"';

/** From the client to both servers. */
const forwardedHeaders = ['authorization', 'traceparent', 'tracestate'];
/** From the server to the client. */
const returnedHeaders = ['content-type', 'cache-control', 'retry-after', 'www-authenticate', 'x-request-id'];

type PdLog = {
  id: string;
  prefill?: string;
  decode?: string;
  prefillMs?: number;
  splicedRows?: number;
  lostHandovers?: number;
};

type Prefilled =
  | Readonly<{ kind: 'done'; backend: Backend; params: unknown; splicer: Splicer | null }>
  /** The client's own fault, or no server's to mend: it is told what the server said. */
  | Readonly<{ kind: 'refused'; backend: Backend; answer: IncomingMessage }>;

export async function servePd(
  request: FastifyRequest,
  reply: FastifyReply,
  services: PdServices,
  path: PdPath,
): Promise<void> {
  const body = request.body;
  if (!isObject(body)) throw HttpError.of('BAD_JSON', null, 'it is empty');
  checkClientBody(body);
  const release = services.admission.admit(1);
  const controller = new AbortController();
  services.running.add(controller);
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) controller.abort();
  });
  if (request.raw.socket.destroyed) controller.abort();
  try {
    await new PdExchange(request, services, path, body, controller.signal).serve(reply);
  } catch (error) {
    // The client is gone: there is no one to answer.
    if (controller.signal.aborted && reply.raw.destroyed) reply.hijack();
    else if (reply.raw.headersSent) {
      // The client must see that its answer was cut.
      reply.raw.destroy();
      throw error;
    } else throw controller.signal.aborted ? HttpError.of('DRAINING', null) : error;
  } finally {
    services.running.delete(controller);
    release();
  }
}

/** `mayRepeat`: the hand-over can be made again if the KV does not come. */
type DecodeLeg = Readonly<{ body: Json; splicer: Splicer | null; mayRepeat: boolean }>;

class PdExchange {
  readonly #services: PdServices;
  readonly #path: PdPath;
  readonly #body: Json;
  readonly #signal: AbortSignal;
  readonly #headers: Record<string, string>;
  readonly #log: PdLog;

  constructor(request: FastifyRequest, services: PdServices, path: PdPath, body: Json, signal: AbortSignal) {
    this.#services = services;
    this.#path = path;
    this.#body = body;
    this.#signal = signal;
    const given = request.headers['x-request-id'];
    const id = typeof given === 'string' ? given : randomUUID();
    // Both servers know the request by the same name.
    this.#headers = { 'content-type': 'application/json', 'x-request-id': id };
    for (const name of forwardedHeaders) {
      const value = request.headers[name];
      if (typeof value === 'string') this.#headers[name] = value;
    }
    this.#log = { id };
    request.summary = () => this.#log;
  }

  async serve(reply: FastifyReply): Promise<void> {
    const { metrics, decode } = this.#services;
    // KV that no decode server can fetch is not made.
    decode.requireUp();
    if (!canBeSplit(this.#body)) {
      metrics.unsplit();
      await this.#decode(reply, { body: this.#body, splicer: null, mayRepeat: false });
      return;
    }
    const startedAt = performance.now();
    for (let handovers = 1; ; handovers++) {
      const prefilled = await this.#prefill();
      if (prefilled.kind === 'refused') {
        await this.#pass(reply, prefilled.backend, prefilled.answer, prefilled.answer);
        return;
      }
      const body = decodeBody(this.#body, prefilled.params);
      const isLate = performance.now() - startedAt > this.#services.config.prefillMs;
      const mayRepeat = handovers < MAX_HANDOVERS && !isLate;
      if (await this.#decode(reply, { body, splicer: prefilled.splicer, mayRepeat })) return;
    }
  }

  async #prefill(): Promise<Prefilled> {
    const { config, prefill, metrics } = this.#services;
    const isSplice = config.rows === 'splice';
    const startedAt = performance.now();
    const { backend, answer, text } = await sendLeg(
      prefill.inTurn(),
      {
        path: this.#path,
        headers: this.#headers,
        body: JSON.stringify(prefillBody(this.#path, this.#body, isSplice)),
        signal: this.#signal,
        silenceMs: config.prefillMs,
      },
      { retries: 'whatever-happened', isRead: true },
      metrics,
    );
    this.#log.prefill = backend.url;
    if (text === null) return { kind: 'refused', backend, answer };
    try {
      const value: unknown = JSON.parse(text);
      this.#log.prefillMs = Math.round(performance.now() - startedAt);
      if (!isObject(value)) throw new Error('its answer is no object');
      const params = value['kv_transfer_params'];
      return { kind: 'done', backend, params, splicer: isSplice ? this.#splicer(value, params) : null };
    } catch (error) {
      throw failureOf(backend, error);
    }
  }

  /** Returns `null` if no rows were asked for. Throws an Error if rows were asked for and did not come. */
  #splicer(answer: Json, params: unknown): Splicer | null {
    const fields = new BodyFields(this.#body);
    const isGenerate = this.#path === '/inference/v1/generate';
    // Rows that are not asked for come in the form of the servers' dialect, which knows no mark to splice at.
    const asked = { isEveryRowReturned: false };
    const { wanted, promptStart } = isGenerate
      ? readGenerateRowFields(fields, fields.object('sampling_params'), asked)
      : readRowFields(fields, 'vllm_xargs', asked);
    if (wanted === null || !isObject(params)) return null;
    const { format } = wanted;
    const numTokens = params['remote_num_tokens'];
    const choice = Array.isArray(answer['choices']) ? (answer['choices'] as readonly unknown[])[0] : undefined;
    if (typeof numTokens !== 'number' || !isObject(choice)) throw new Error('its answer has no choice');
    return Splicer.from(choice, { format, start: promptStart, numPromptTokens: numTokens });
  }

  /** `false`, where the hand-over may be made again: the KV did not come, and nothing has been passed on. */
  async #decode(reply: FastifyReply, { body, splicer, mayRepeat }: DecodeLeg): Promise<boolean> {
    const { config, decode, metrics } = this.#services;
    const { backend, answer } = await sendLeg(
      decode.inTurn(),
      {
        path: this.#path,
        headers: this.#headers,
        body: JSON.stringify(body),
        signal: this.#signal,
        silenceMs: config.decodeMs,
      },
      { retries: 'if-nobody-saw-it', isRead: false },
      metrics,
    );
    this.#log.decode = backend.url;
    const failed = (error: unknown): never => {
      throw this.#signal.aborted ? error : failureOf(backend, error);
    };
    const isStream = answer.headers['content-type']?.startsWith('text/event-stream') === true;
    let chunks: AsyncIterable<Uint8Array> = answer;
    // An answer that can still be an error is looked at before its head is passed on.
    if (mayRepeat && (answer.statusCode === 500 || (answer.statusCode === 200 && isStream))) {
      const { beginning, whole } = await peek(answer).catch(failed);
      if (beginning.includes(KV_LOAD_FAILED)) {
        this.#log.lostHandovers = (this.#log.lostHandovers ?? 0) + 1;
        await readText(whole).catch(failed);
        return false;
      }
      chunks = whole;
    }
    if (splicer === null || answer.statusCode !== 200) {
      await this.#pass(reply, backend, answer, chunks);
      return true;
    }
    const parts = isStream ? splicedEvents(chunks, splicer) : await splicedJson(chunks, splicer).catch(failed);
    await this.#pass(reply, backend, answer, parts);
    const { numSpliced, numMissing } = splicer.counts;
    this.#log.splicedRows = numSpliced;
    metrics.spliced(numSpliced, numMissing);
    return true;
  }

  async #pass(
    reply: FastifyReply,
    backend: Backend,
    { statusCode, headers }: IncomingMessage,
    parts: AsyncIterable<Uint8Array | string>,
  ): Promise<void> {
    reply.hijack();
    if (reply.raw.destroyed) return;
    const returned = returnedHeaders.flatMap((name) => {
      const value = headers[name];
      return typeof value === 'string' ? [[name, value] as const] : [];
    });
    reply.raw.writeHead(statusCode ?? 502, Object.fromEntries(returned));
    try {
      await writeAnswer(reply.raw, parts, this.#services.config.limits.stallMs);
    } catch (error) {
      throw this.#signal.aborted ? error : failureOf(backend, error);
    }
  }
}
