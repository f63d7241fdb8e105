/**
 * Weights whose version is noted and whose values stay: a server of this kind has the weights of `--epoch` for as long
 * as it runs, so an update gives them another name, and changes no token and no row.
 */

import type { EngineHost } from '../engine-host.ts';
import { HttpError } from '../http-error.ts';
import type { RunningAnswers } from './running-answers.ts';
import type { PauseMode, WeightControl, WeightUpdate } from './weight-control.ts';

export class NotedWeights implements WeightControl {
  readonly epoch: number;
  readonly #host: EngineHost;
  readonly #running: RunningAnswers;
  #version = 'default';
  /** Settles when requests may run; `null`: they may. */
  #door: PromiseWithResolvers<void> | null = null;

  constructor(host: EngineHost, running: RunningAnswers) {
    this.epoch = host.options.epoch;
    this.#host = host;
    this.#running = running;
  }

  get version(): string {
    return this.#version;
  }

  get isPaused(): boolean {
    return this.#door !== null;
  }

  async mayRun(signal: AbortSignal): Promise<boolean> {
    while (this.#door !== null && !signal.aborted) {
      const left = Promise.withResolvers<void>();
      signal.addEventListener('abort', () => left.resolve(), { once: true });
      await Promise.race([this.#door.promise, left.promise]);
    }
    return !signal.aborted;
  }

  async pause({ mode, clearsCache }: Readonly<{ mode: PauseMode; clearsCache: boolean }>): Promise<void> {
    const { numRequests } = this.#host;
    if ((mode === 'keep' || mode === 'retract') && numRequests > 0) {
      throw HttpError.of('PAUSE_UNSUPPORTED', 'mode', mode, numRequests);
    }
    if (this.#door === null) {
      this.#door = Promise.withResolvers();
      // It rejects for those that wait, and there may be none.
      this.#door.promise.catch(() => {});
    }
    if (mode === 'abort') this.#running.abort(() => true);
    await this.#host.idle();
    if (clearsCache) this.#host.engine.resetPrefixCache(false);
  }

  resume(): void {
    this.#door?.resolve();
    this.#door = null;
  }

  update({ version, clearsCache, abortsRequests }: WeightUpdate): void {
    if (abortsRequests) this.#running.abort(() => true);
    const { numRequests } = this.#host;
    if (numRequests > 0) throw HttpError.of('WEIGHTS_IN_USE', null, numRequests);
    if (version !== null) this.rename(version);
    if (clearsCache) this.#host.engine.resetPrefixCache(false);
  }

  rename(version: string): void {
    const [before, after] = [Number(this.#version), Number(version)];
    if (after < before) throw HttpError.of('VERSION_BACKWARDS', 'weight_version', version, this.#version);
    this.#version = version;
  }

  close(): void {
    this.#door?.reject(HttpError.of('DRAINING', null));
    this.#door = null;
  }
}
