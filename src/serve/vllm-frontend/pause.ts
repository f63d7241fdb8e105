/**
 * Whether the engine generates, and which callers wait to hear that it has stopped.
 *
 *     running ──pause abort──▶ paused: every request is aborted
 *             ──pause wait───▶ paused: those that have begun run to their end
 *             ──pause keep───▶ paused: those that have begun stand still
 *     paused  ──resume, wake─▶ running, unless the weights or the KV cache are asleep
 *
 * New requests are held in every mode. A pause is complete when no step is in flight and, unless requests are kept,
 * none is left; then its caller gets the reply.
 */

import type { UtilityCall } from './wire/frontend-message.ts';

export const PAUSE_MODES = ['abort', 'wait', 'keep'] as const;
export type PauseMode = (typeof PAUSE_MODES)[number];

/** What sleeps beside the scheduling. */
const MEMORY = ['weights', 'kv_cache'] as const;

export type PauseRequest = Readonly<{
  call: UtilityCall;
  mode: PauseMode;
  /** Forget every cached prefix once the pause is complete. */
  clearsCache: boolean;
  /** From 1 on weights and KV cache go to sleep too. */
  sleepLevel: number;
}>;

export class Pause {
  #isPaused = false;
  readonly #asleep: Set<string> = new Set();
  #pending: PauseRequest[] = [];

  get isPaused(): boolean {
    return this.#isPaused;
  }

  get isSleeping(): boolean {
    return this.#isPaused || this.#asleep.size > 0;
  }

  get isPending(): boolean {
    return this.#pending.length > 0;
  }

  begin(request: PauseRequest): void {
    this.#isPaused = true;
    this.#pending.push(request);
  }

  /** Takes the pauses that are complete. */
  takeComplete({ numRequests, numInFlight }: Readonly<{ numRequests: number; numInFlight: number }>): PauseRequest[] {
    const isComplete = ({ mode }: PauseRequest): boolean => numInFlight === 0 && (mode === 'keep' || numRequests === 0);
    const complete = this.#pending.filter(isComplete);
    this.#pending = this.#pending.filter((request) => !isComplete(request));
    if (complete.some(({ sleepLevel }) => sleepLevel > 0)) for (const name of MEMORY) this.#asleep.add(name);
    return complete;
  }

  /** Takes the pauses that are cut short. */
  resume(): PauseRequest[] {
    this.#isPaused = false;
    const cut = this.#pending;
    this.#pending = [];
    return cut;
  }

  /** `null` wakes everything. Returns whether the engine is to resume. */
  wakeUp(tags: readonly string[] | null): boolean {
    for (const name of tags ?? MEMORY) this.#asleep.delete(name);
    return this.#asleep.size === 0;
  }

  /** Nobody waits for the replies of a client that is gone. */
  forgetClient(clientIndex: number): void {
    this.#pending = this.#pending.filter(({ call }) => call.clientIndex !== clientIndex);
  }
}
