/** The proxy: one address before servers that prefill and servers that decode. */

import type { AddressInfo } from 'node:net';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { Admission } from '../admission.ts';
import { createApp } from '../http-app.ts';
import { version, within } from '../server-parts.ts';
import { BackendPool } from './backend-pool.ts';
import { sendLeg } from './leg.ts';
import type { PdServices } from './pd-route.ts';
import { servePd } from './pd-route.ts';
import type { ProxyConfig } from './proxy-config.ts';
import { ProxyMetrics } from './proxy-metrics.ts';
import { readText } from './spliced-answer.ts';
import type { PdPath } from './two-legs.ts';

const LAST_WORDS_MS = 2000;
const MODELS_SILENCE_MS = 5000;
const paths: readonly PdPath[] = ['/v1/completions', '/v1/chat/completions', '/inference/v1/generate'];

export class Proxy {
  readonly #app: FastifyInstance;
  readonly #services: PdServices;
  #closed: Promise<void> | null = null;

  private constructor(app: FastifyInstance, services: PdServices) {
    this.#app = app;
    this.#services = services;
    for (const path of paths) app.post(path, (request, reply) => servePd(request, reply, services, path));
    app.get('/v1/models', (request, reply) => this.#models(request, reply));
    app.get('/version', () => ({ version: version() }));
    app.get('/metrics', async (_, reply) => {
      void reply.type(services.metrics.registry.contentType);
      return services.metrics.registry.metrics();
    });
    app.get('/health', (_, reply) => {
      const { prefill, decode, admission } = services;
      const isHealthy = prefill.hasUp && decode.hasUp && !admission.isDraining;
      return reply.code(isHealthy ? 200 : 503).send({ prefill: upOf(prefill), decode: upOf(decode) });
    });
  }

  /** Looks at every server once, then listens, also if none is up yet. Rejects with CANNOT_LISTEN. */
  static async start(config: ProxyConfig): Promise<Proxy> {
    const app = createApp({ ...config, apiKey: null });
    const prefill = new BackendPool('prefill', config.prefill);
    const decode = new BackendPool('decode', config.decode);
    const admission = new Admission(config.limits.maxConcurrent);
    const metrics = new ProxyMetrics([prefill, decode], () => admission.taken);
    const services = { config, admission, metrics, prefill, decode, running: new Set<AbortController>() };
    const proxy = new Proxy(app, services);
    await Promise.all([prefill.watch(config.healthMs), decode.watch(config.healthMs)]);
    try {
      await app.listen({ host: config.host, port: config.port });
      return proxy;
    } catch (error) {
      await proxy.close(0);
      throw RoutedExpertsError.of('CANNOT_LISTEN', `${config.host}:${config.port}`, (error as Error).message);
    }
  }

  /** e.g. `http://127.0.0.1:8000`. */
  get url(): string {
    const { address, family, port } = this.#app.server.address() as AddressInfo;
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
  }

  /** Requests whose answer is not complete. */
  get numActive(): number {
    return this.#services.admission.taken;
  }

  /**
   * Takes no new requests, lets running ones finish for at most `drainMs`, and cuts off the rest.
   * Idempotent.
   */
  close(drainMs: number): Promise<void> {
    this.#closed ??= this.#close(drainMs);
    return this.#closed;
  }

  async #close(drainMs: number): Promise<void> {
    const { admission, running, prefill, decode, metrics } = this.#services;
    const drained = admission.drain();
    await within(drainMs, drained);
    for (const controller of running) controller.abort();
    await within(LAST_WORDS_MS, drained);
    await this.#app.close();
    prefill.close();
    decode.close();
    metrics.registry.clear();
  }

  /** All servers serve one model: any decode server says which. */
  async #models({ headers }: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const { authorization } = headers;
    const controller = new AbortController();
    reply.raw.once('close', () => controller.abort());
    const { answer } = await sendLeg(
      this.#services.decode.inTurn(),
      {
        path: '/v1/models',
        headers: authorization === undefined ? {} : { authorization },
        body: null,
        signal: controller.signal,
        silenceMs: MODELS_SILENCE_MS,
      },
      { retries: 'whatever-happened', isRead: false },
      this.#services.metrics,
    );
    const text = await readText(answer);
    return reply
      .code(answer.statusCode ?? 502)
      .type('application/json; charset=utf-8')
      .send(text);
  }
}

function upOf({ backends }: BackendPool): readonly Readonly<{ url: string; up: boolean }>[] {
  return backends.map(({ url, isUp }) => ({ url, up: isUp }));
}
