/** The server: routes over an engine host, from the first request to the drain. */

import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { RoutedExpertsError } from '../contract/errors.ts';
import { Admission } from './admission.ts';
import { resetPrefixCache } from './cache-route.ts';
import { readChatBody } from './body/chat-body.ts';
import { readCompletionBody } from './body/completion-body.ts';
import type { Dialect } from './dialect.ts';
import { chat, completions, generate } from './dialect.ts';
import { EngineHost } from './engine-host.ts';
import { readGenerateBody } from './body/generate-body.ts';
import type { BodyReader, GenerationServices } from './generation-route.ts';
import { serveGeneration } from './generation-route.ts';
import { createApp } from './http-app.ts';
import { Metrics } from './metrics.ts';
import type { ServeConfig } from './serve-config.ts';
import { version, within } from './server-parts.ts';
import { startWarnings } from './start-warnings.ts';
import { ByteTokenizer } from './body/tokenizer.ts';

/** Time for clients to read the end of answers that a drain cut short. */
const LAST_WORDS_MS = 2000;

export class Server {
  readonly host: EngineHost;
  readonly #app: FastifyInstance;
  readonly #admission: Admission;
  readonly #metrics: Metrics;
  readonly #created = Math.floor(Date.now() / 1000);
  #closed: Promise<void> | null = null;

  private constructor(config: ServeConfig, app: FastifyInstance, host: EngineHost, metrics: Metrics) {
    this.host = host;
    this.#app = app;
    this.#metrics = metrics;
    this.#admission = new Admission(config.limits.maxConcurrent);
    metrics.observe(host, () => this.#admission.taken);
    if (host.kv !== null) metrics.observeKv(host, host.kv);
    if (host.engine.offloadStats() !== null) metrics.observeOffload(host);
    this.#addRoutes(config);
  }

  /**
   * Starts the workers, then listens. Rejects with CANNOT_LISTEN or what keeps the workers from starting; nothing is
   * left behind then.
   */
  static async start(config: ServeConfig): Promise<Server> {
    const app = createApp(config);
    const metrics = new Metrics(config.servedModel);
    const host = await EngineHost.start(config.engine, {
      onStep: (timing) => metrics.onStep(timing),
      onOutput: (choice, output) => metrics.onOutput(choice, output),
      onLoss: ({ message }) => app.log.warn({ reason: message }, 'workers were lost; new ones are being started'),
      onRestart: () => {
        metrics.onRestart();
        app.log.warn('new workers run; what ran is computed anew');
      },
      onKvFailure: (id, error) => app.log.warn({ id, reason: error.message }, 'KV from elsewhere did not come'),
      onOffloadProblem: (message) => app.log.warn(message),
      onDeath: (error) => app.log.error({ err: error }, 'the engine has stopped'),
    }).catch((error: unknown) => {
      metrics.close();
      throw error;
    });
    const server = new Server(config, app, host, metrics);
    for (const warning of startWarnings(config.engine)) app.log.warn(warning);
    try {
      await app.listen({ host: config.host, port: config.port });
      return server;
    } catch (error) {
      await server.close(0);
      throw RoutedExpertsError.of('CANNOT_LISTEN', `${config.host}:${config.port}`, (error as Error).message);
    }
  }

  /** e.g. `http://127.0.0.1:8000`. */
  get url(): string {
    const { address, family, port } = this.#app.server.address() as AddressInfo;
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
  }

  /** Choices whose answer is not complete. */
  get numActive(): number {
    return this.#admission.taken;
  }

  /**
   * Takes no new requests, lets running ones finish for at most `drainMs`, aborts the rest, then stops. Idempotent; a
   * later call with a shorter time has no effect.
   */
  close(drainMs: number): Promise<void> {
    this.#closed ??= this.#close(drainMs);
    return this.#closed;
  }

  async #close(drainMs: number): Promise<void> {
    const drained = this.#admission.drain();
    // Other servers may still fetch the KV that they were promised.
    await within(drainMs, Promise.all([drained, this.host.kv?.drained()]));
    await this.host.close();
    // Aborted requests end with the rows that they have, and their clients are told.
    await within(LAST_WORDS_MS, drained);
    await this.#app.close();
    this.#metrics.close();
  }

  #addRoutes({ engine, limits, servedModel }: ServeConfig): void {
    const { model } = engine;
    const tokenizer = new ByteTokenizer(model.vocabSize);
    const { maxModelLen } = engine.engine;
    const services: GenerationServices = {
      host: this.host,
      admission: this.#admission,
      metrics: this.#metrics,
      tokenizer,
      stallMs: limits.stallMs,
      limits: {
        servedModel,
        vocabSize: model.vocabSize,
        maxModelLen,
        // Published models keep their special tokens at the end of the vocabulary.
        eosTokenId: model.vocabSize - 1,
        transfer: this.host.kv?.rules ?? null,
        hasRows: engine.design !== 'off',
        hasPriorities: engine.engine.policy === 'priority',
        maxChoices: limits.maxConcurrent,
      },
    };
    const post = (url: string, dialect: Dialect, read: BodyReader): void => {
      this.#app.post(url, (request, reply) => serveGeneration(request, reply, services, dialect, read));
    };
    post('/v1/completions', completions, (body, id) => readCompletionBody(body, id, services.limits, tokenizer));
    post('/v1/chat/completions', chat, (body, id) => readChatBody(body, id, services.limits, tokenizer));
    post('/inference/v1/generate', generate, (body, id) => readGenerateBody(body, id, services.limits));

    this.#app.post('/reset_prefix_cache', (request, reply) => resetPrefixCache(this.host.engine, request, reply));

    const card = {
      id: servedModel,
      object: 'model',
      created: this.#created,
      owned_by: 'routed-experts',
      root: model.name,
      parent: null,
      max_model_len: maxModelLen,
    };
    this.#app.get('/v1/models', () => ({ object: 'list', data: [card] }));
    this.#app.get('/version', () => ({ version: version() }));
    this.#app.get('/metrics', async (_, reply) => {
      void reply.type(this.#metrics.registry.contentType);
      return this.#metrics.registry.metrics();
    });
    this.#app.get('/health', (_, reply) => {
      const { workers, deathReason } = this.host.engine;
      const { isRestarting, numRestarts, lastLoss } = workers;
      const isDead = deathReason !== null;
      const { isDraining } = this.#admission;
      const status = isDead ? 'stopped' : isDraining ? 'draining' : isRestarting ? 'restarting' : 'ok';
      return reply.code(isDead || isDraining ? 503 : 200).send({
        status,
        worker_restarts: numRestarts,
        last_loss: lastLoss,
        stopped_because: deathReason,
      });
    });
  }
}
