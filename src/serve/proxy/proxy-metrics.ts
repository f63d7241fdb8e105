/** What the proxy's `/metrics` tells. */

import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { BackendPool } from './backend-pool.ts';
import type { BackendRole } from './backend.ts';

const PREFIX = 'routed_experts_proxy:';
const legBuckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320];

type LegLabel = 'role' | 'server' | 'result';

export class ProxyMetrics {
  readonly registry: Registry = new Registry();
  readonly #legs: Counter<LegLabel>;
  readonly #seconds: Histogram<'role'>;
  readonly #spliced: Counter;
  readonly #missing: Counter;
  readonly #unsplit: Counter;

  constructor(pools: readonly BackendPool[], numActive: () => number) {
    const registers = [this.registry];
    this.#legs = new Counter({
      name: `${PREFIX}legs_total`,
      help: 'Requests to servers, by the status of their answer or by what kept it from coming',
      labelNames: ['role', 'server', 'result'],
      registers,
    });
    this.#seconds = new Histogram({
      name: `${PREFIX}leg_seconds`,
      help: 'Until the answer of a server that prefills, and the head of one that decodes, was there',
      labelNames: ['role'],
      buckets: legBuckets,
      registers,
    });
    const counter = (name: string, help: string): Counter => new Counter({ name: PREFIX + name, help, registers });
    this.#spliced = counter('rows_spliced_total', 'Rows of prefill servers put into answers of decode servers');
    this.#missing = counter('rows_missing_total', 'Rows that stayed missing in answers that were spliced');
    this.#unsplit = counter('unsplit_requests_total', 'Requests of several prompts, served by a decode server alone');
    const up = new Gauge({
      name: `${PREFIX}server_up`,
      help: 'Whether a server takes requests, as of the last time that it was asked',
      labelNames: ['role', 'server'],
      registers: [],
      collect() {
        for (const { role, backends } of pools) {
          for (const { url, isUp } of backends) this.set({ role, server: url }, isUp ? 1 : 0);
        }
      },
    });
    const active = new Gauge({
      name: `${PREFIX}http_requests_active`,
      help: 'Requests whose answer is not complete',
      registers: [],
      collect() {
        this.set(numActive());
      },
    });
    this.registry.registerMetric(up);
    this.registry.registerMetric(active);
  }

  /** `result`: an HTTP status, or why there is none. */
  leg(role: BackendRole, server: string, result: number | string, ms: number): void {
    this.#legs.inc({ role, server, result: String(result) });
    this.#seconds.observe({ role }, ms / 1e3);
  }

  spliced(numSpliced: number, numMissing: number): void {
    this.#spliced.inc(numSpliced);
    this.#missing.inc(numMissing);
  }

  unsplit(): void {
    this.#unsplit.inc();
  }
}
